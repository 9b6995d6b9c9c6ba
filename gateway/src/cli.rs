//! The command line. The flags of `serve`, `epp` and `demo` are made from the settings' keys.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command as Clap, value_parser};

use crate::config::{
    CONFIG_ENV, Config, ConfigError, Key, Kind, Loaded, Setting, keys, load_over, switch,
};

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Run the gateway.
    Serve(Settings),
    /// Run the picker of pods for an Envoy.
    Epp(Settings),
    /// Run the gateway over simulated pods.
    #[cfg(feature = "demo")]
    Demo {
        /// End after the job.
        once: bool,
        /// The gateway's settings.
        settings: Settings,
    },
    /// Look at every pod once.
    Doctor {
        /// One JSON object instead of lines.
        json: bool,
        /// Which pods: as `serve` would find them.
        settings: Settings,
    },
    /// Make a configuration of an Endpoint Picker's.
    ImportEpp(Vec<PathBuf>),
    /// Say whether `serve` would start with this file.
    CheckConfig(PathBuf),
    /// Print the reference of all settings.
    PrintConfig,
}

/// Where the settings come from, as far as the command line says.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The other flags.
    pub flags: Vec<Setting>,
}

// === impl Settings ===

impl Settings {
    /// Loads the settings over `base`, with the file that the flag names or else `HEARTH_CONFIG`.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn load(
        &self,
        base: &Config,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let env: Vec<_> = env.into_iter().collect();
        let named = env.iter().find(|(name, _)| name == CONFIG_ENV).map(|(_, file)| file.into());
        let file = self.file.clone().or(named);
        load_over(base, file.as_deref(), env, &self.flags)
    }

    fn from_matches(matches: &ArgMatches) -> Self {
        let flags = keys().iter().flat_map(|key| {
            let texts = matches.get_many::<String>(&key.name()).into_iter().flatten();
            texts.map(move |text| Setting { key, text: text.clone() })
        });
        Self { file: matches.get_one("config").cloned(), flags: flags.collect() }
    }
}

/// Reads the command line, the program's name first.
///
/// # Errors
/// What [`clap::Error::exit`] prints: a complaint (status 2), or the help or version that was asked
/// for (status 0).
pub fn parse<T>(args: impl IntoIterator<Item = T>) -> Result<Command, clap::Error>
where
    T: Into<OsString>,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let matches = program().try_get_matches_from(&args).map_err(|error| better(error, &args))?;
    let (name, matches) = matches.subcommand().expect("clap insists on a subcommand");
    Ok(match name {
        "serve" => Command::Serve(Settings::from_matches(matches)),
        "epp" => Command::Epp(Settings::from_matches(matches)),
        #[cfg(feature = "demo")]
        "demo" => Command::Demo {
            once: matches.get_flag("once"),
            settings: Settings::from_matches(matches),
        },
        "doctor" => {
            let mut settings = Settings::from_matches(matches);
            let urls: Vec<_> = matches.get_many::<String>("url").into_iter().flatten().collect();
            let endpoints = keys().iter().find(|key| key.name() == "endpoints");
            let key = endpoints.expect("there is a setting called endpoints");
            settings.flags.extend(urls.iter().map(|url| Setting { key, text: (*url).clone() }));
            Command::Doctor { json: matches.get_flag("json"), settings }
        }
        "import-epp" => {
            let files = matches.get_many::<PathBuf>("file").into_iter().flatten();
            Command::ImportEpp(files.cloned().collect())
        }
        "check-config" => {
            let file = matches.get_one::<PathBuf>("file").or(matches.get_one("config"));
            Command::CheckConfig(file.expect("clap insists on the file").clone())
        }
        _ => Command::PrintConfig,
    })
}

/// A complaint that says what was meant, if we can tell; help and version are none.
fn better(error: clap::Error, args: &[OsString]) -> clap::Error {
    match hint(args) {
        Some(hint) if error.use_stderr() => program().error(ErrorKind::UnknownArgument, hint),
        _ => error,
    }
}

/// What a refused command line was meant to say, if we can tell.
fn hint(args: &[OsString]) -> Option<String> {
    let words: Vec<&str> = args.iter().map(|word| word.to_str()).collect::<Option<_>>()?;
    let [_program, command, words @ ..] = words.as_slice() else { return None };
    let listens = matches!(*command, "serve" | "epp" | "demo");
    let of_listeners = || port(command, words).or_else(|| stray_file(words));
    loose_value(words).or_else(|| listens.then(of_listeners).flatten())
}

/// Of `--log-access false`, which is a switch and a stray word.
fn loose_value(words: &[&str]) -> Option<String> {
    let is_switch = |flag: &str| {
        let name = flag.strip_prefix("--");
        keys().iter().any(|key| key.kind == Kind::Switch && name == Some(&key.flag()))
    };
    words.windows(2).find_map(|pair| {
        let (flag, word) = (pair[0], pair[1]);
        let is_loose = is_switch(flag) && switch(word).is_some();
        is_loose.then(|| {
            format!("a switch takes its value after an equals sign: write `{flag}={word}`")
        })
    })
}

/// Of `--port 8080`, which other servers have.
fn port(command: &str, words: &[&str]) -> Option<String> {
    let at = words.iter().position(|word| *word == "--port" || word.starts_with("--port="))?;
    let given = words[at].split_once('=').map(|(_, port)| port).or(words.get(at + 1).copied());
    let port =
        given.and_then(|port| port.parse::<u16>().ok()).map_or("PORT".into(), |it| it.to_string());
    let flag = if command == "epp" { "--epp-listen" } else { "--listen" };
    Some(format!("there is no `--port`: write `{flag} 0.0.0.0:{port}`"))
}

/// Of `serve FILE`.
fn stray_file(words: &[&str]) -> Option<String> {
    let file = words.first().filter(|word| !word.starts_with('-'))?;
    Some(format!("a configuration file is named by a flag: write `--config {file}`"))
}

/// The whole command line as clap knows it.
fn program() -> Clap {
    let serve = Clap::new("serve").about("Run the gateway");
    let epp = Clap::new("epp")
        .about("Choose pods for an Envoy that relays (external processing), as an Endpoint Picker");
    let check = Clap::new("check-config")
        .about("Say whether `serve` would start with FILE (status 0) or why not (status 2)")
        .arg(file("file").required_unless_present("config").conflicts_with("config"))
        .arg(file("config").long("config").short('c').help("The same"));
    let print =
        Clap::new("config").about("Print a configuration file with every setting explained");
    let program = Clap::new("hearth")
        .about("An OpenAI endpoint in front of vLLM pods that sends each request to the warmest")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(serve))
        .subcommand(with_settings(epp));
    #[cfg(feature = "demo")]
    let program = program.subcommand(with_settings(demo()));
    let program = program.subcommand(with_settings(doctor())).subcommand(import_epp());
    program.subcommand(check).subcommand(print)
}

fn file(id: &'static str) -> Arg {
    Arg::new(id).value_name("FILE").value_parser(value_parser!(PathBuf))
}

fn import_epp() -> Clap {
    Clap::new("import-epp")
        .about("Print a configuration made from EndpointPickerConfigs, and what does not map")
        .arg(file("file").required(true).num_args(1..))
}

fn doctor() -> Clap {
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue);
    let urls = Arg::new("url").value_name("URL").num_args(0..);
    Clap::new("doctor")
        .about(
            "Look at every pod once and say what is wrong, with the fix (status 1 if anything is)",
        )
        .arg(json.help("One JSON object"))
        .arg(urls.help("Pods by URL, instead of those that the settings find"))
}

#[cfg(feature = "demo")]
fn demo() -> Clap {
    let once = Arg::new("once").long("once").action(ArgAction::SetTrue);
    Clap::new("demo")
        .about("Run the gateway over simulated pods, with a job that shows what it does")
        .arg(once.help("End after the job, with status 0 only if its gates hold"))
}

/// What `-h` says instead of some two hundred lines of flags.
const SETTINGS_HELP: &str = "\
Every setting is a flag, a variable and a key of the file; a flag beats a variable beats the file.
`--help` lists all of them, `hearth config` prints them as a file. To begin with:
  --endpoints http://10.0.0.7:8000,http://10.0.0.8:8000   pods by address, or
  --kubernetes-enabled --kubernetes-selector LABEL=VALUE  pods by label
  --tokenizers '{MODEL: hf:OWNER/NAME}'                   match prompts by their tokens
  --listen 0.0.0.0:8080 --admin-listen 127.0.0.1:9090     where clients and operators come
  --routing-policy warm                                   who gets a request
  --log-level info --log-format text                      what is logged";

fn with_settings(command: Clap) -> Clap {
    let file = file("config")
        .long("config")
        .short('c')
        .help(format!("The configuration file [env: {CONFIG_ENV}]"));
    command.arg(file).args(keys().iter().map(flag)).after_help(SETTINGS_HELP)
}

fn flag(key: &'static Key) -> Arg {
    let section = match key.path.as_slice() {
        [section, _, ..] => section,
        _ => "settings",
    };
    let default = match &key.default {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let help = format!("{} [env: {}] [default: {default}]", key.doc, key.env());
    let arg = Arg::new(key.name()).long(key.flag()).help_heading(section);
    let arg = arg.help(help).hide_short_help(true);
    match key.kind {
        // `--x false` would read as `--x` and a stray word; so the value is glued on, and the word
        // is an error.
        Kind::Switch => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("BOOL"),
        Kind::List => arg.action(ArgAction::Append).value_name("LIST"),
        Kind::Map => arg.value_name("MAP"),
        Kind::Number => arg.value_name("NUMBER"),
        Kind::Text if key.choices.is_empty() => arg.value_name("TEXT"),
        Kind::Text => {
            let words = key.choices.iter().map(|(word, _)| word.as_str());
            arg.value_parser(PossibleValuesParser::new(words)).value_name("WORD")
        }
    }
}
