use super::*;

fn settings(args: &[&str]) -> Settings {
    match parse(["hearth", "serve"].iter().chain(args)).expect("it is a command line") {
        Command::Serve(settings) => settings,
        other => panic!("not serve: {other:?}"),
    }
}

fn complaint(args: &[&str]) -> String {
    let error = parse(["hearth"].iter().chain(args)).expect_err("it is refused");
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

#[test]
fn every_key_has_a_flag() {
    program().debug_assert();
    for key in keys() {
        let text = match key.kind {
            Kind::Switch => "true".to_owned(),
            Kind::Text if !key.choices.is_empty() => key.choices[0].0.clone(),
            _ => "1".to_owned(),
        };
        let settings = settings(&[&format!("--{}={text}", key.flag())]);
        assert_eq!(settings.flags.len(), 1);
        assert_eq!((settings.flags[0].key.name(), &settings.flags[0].text), (key.name(), &text));
    }
}

#[test]
fn flags_reach_the_settings() {
    let settings = settings(&[
        "--endpoints",
        "http://a:1,http://b:2",
        "--cors-enabled",
        "--log-access=false",
        "--log-format",
        "text",
    ]);
    let config = settings.load(&Config::default(), []).expect("they go together").config;
    assert_eq!(config.endpoints.len(), 2);
    assert!(config.cors.enabled && !config.log.access);
    assert_eq!(config.log.format, crate::config::LogFormat::Text);
}

#[test]
fn the_flag_names_the_file_before_the_variable_does() {
    let error = |args: &[&str]| {
        let env = [(CONFIG_ENV.to_owned(), "from-env.yaml".to_owned())];
        settings(args).load(&Config::default(), env).expect_err("no such file").to_string()
    };
    assert!(error(&[]).starts_with("from-env.yaml: "));
    assert!(error(&["--config", "from-flag.yaml"]).starts_with("from-flag.yaml: "));
}

#[test]
fn no_word_is_swallowed() {
    for args in [
        &["serve", "--cors-enabled", "false"][..],
        &["serve", "stray"],
        &["serve", "--listen"],
        &["serve", "--threads", "1", "--threads", "2"],
        &["check-config"],
        &["check-config", "a", "b"],
        &["config", "extra"],
        &["frobnicate"],
        &["--listen", "0.0.0.0:1"],
    ] {
        complaint(args);
    }
    assert!(complaint(&["serve", "--cors-enabled", "false"]).contains("`--cors-enabled=false`"));
}

#[test]
fn a_file_is_checked_however_it_is_named() {
    for args in [&["a.yaml"][..], &["--config", "a.yaml"], &["-c", "a.yaml"]] {
        let command = parse(["hearth", "check-config"].iter().chain(args));
        assert!(
            matches!(&command, Ok(Command::CheckConfig(file)) if file.as_os_str() == "a.yaml"),
            "{command:?}"
        );
    }
    complaint(&["check-config", "a.yaml", "-c", "b.yaml"]);
}

#[test]
fn what_is_meant_is_only_told_of_what_is_refused() {
    for args in [&["help"][..], &["help", "serve"], &["serve", "--help", "a.yaml"]] {
        let help = parse(["hearth"].iter().chain(args)).expect_err("it prints");
        assert_eq!(help.exit_code(), 0, "{help}");
    }
    assert!(complaint(&["doctor", "--port", "1"]).contains("'--port'"));
}

#[test]
fn a_misspelt_flag_is_named_with_the_nearest_one() {
    let flag = complaint(&["serve", "--deadline-connect", "1s"]);
    assert!(
        flag.contains("'--deadline-connect'") && flag.contains("--deadlines-connect"),
        "{flag}"
    );
    let word = complaint(&["serve", "--routing-policy", "wram"]);
    assert!(word.contains("'wram'") && word.contains("'warm'"), "{word}");
}

#[test]
fn a_flag_s_value_that_does_not_fit_names_the_flag() {
    let settings = settings(&["--endpoints", "http://a:1", "--deadlines-connect", "soon"]);
    let error = settings.load(&Config::default(), []).expect_err("it is no duration").to_string();
    assert!(error.starts_with("--deadlines-connect: "), "{error}");
}

#[test]
fn the_help_and_the_version_are_no_errors() {
    for args in [&["hearth", "--version"][..], &["hearth", "serve", "--help"]] {
        assert_eq!(parse(args).expect_err("it prints").exit_code(), 0);
    }
}

#[test]
fn the_short_help_fits_a_screen_and_the_long_one_has_every_flag() {
    let help = |args: [&str; 3]| parse(args).expect_err("it prints").to_string();
    for command in ["serve", "doctor", "demo"] {
        if command == "demo" && !cfg!(feature = "demo") {
            continue;
        }
        let short = help(["hearth", command, "-h"]);
        assert!(short.lines().count() <= 30, "{short}");
        assert!(short.contains("`--help`") && short.contains("`hearth config`"), "{short}");
        let long = help(["hearth", command, "--help"]);
        for key in keys() {
            assert!(long.contains(&format!("--{}", key.flag())), "{command}: {}", key.flag());
        }
    }
    // The flags that the short help names exist.
    let words = SETTINGS_HELP.split_whitespace().filter_map(|word| word.strip_prefix("--"));
    for flag in words {
        assert!(keys().iter().any(|key| key.flag() == flag), "{flag}");
    }
}

#[cfg(feature = "demo")]
#[test]
fn the_demo_takes_the_flags_of_serve() {
    let args = ["hearth", "demo", "--once", "--listen=127.0.0.1:0"];
    let Ok(Command::Demo { once: true, settings }) = parse(args) else { panic!("not a demo") };
    assert_eq!(settings.flags.len(), 1);
}
