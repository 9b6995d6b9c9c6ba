//! `hearth`: parse, load, build, run.

use std::error::Error;
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use futures_util::Stream;
use gateway::app::{App, StartError};
use gateway::check_config::check_config;
use gateway::cli::{self, Command};
use gateway::config::{Config, Loaded, environment, write_reference};
use gateway::drain::{self, Signal};
use gateway::import_epp::Import;
use gateway::telemetry::{self, LogLevel};
use router::story::story;

/// Memory is given back to the system after a burst, which glibc's allocator does not do.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The settings are wrong: nothing was started (the status that clap and the shells use).
const BAD_SETTINGS: u8 = 2;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => error.exit(),
    };
    match execute(command) {
        Ok(code) => code,
        Err(error) => {
            complain(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(settings) => {
            with_settings(&settings, &Config::default(), |loaded| serve(loaded, App::start))
        }
        Command::Epp(settings) => {
            with_settings(&settings, &Config::default(), |loaded| serve(loaded, App::start_epp))
        }
        #[cfg(feature = "demo")]
        Command::Demo { once, settings } => {
            with_settings(&settings, &gateway::demo::config(), |loaded| demo(once, loaded))
        }
        Command::Doctor { json, settings } => {
            with_settings(&settings, &Config::default(), |loaded| doctor(json, &loaded.config))
        }
        Command::ImportEpp(files) => {
            let mut import = Import::default();
            for file in &files {
                let name = file.display().to_string();
                let text = std::fs::read_to_string(file).context(name.clone())?;
                import.read(&name, &text)?;
            }
            std::io::stdout().write_all(import.to_yaml().as_bytes()).context("writing")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::CheckConfig(file) => {
            let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
            let code = check_config(&file, environment(), &mut out, &mut err)?;
            Ok(ExitCode::from(code))
        }
        Command::PrintConfig => {
            match write_reference(&mut std::io::stdout().lock()) {
                // `hearth config | head` has read enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                written => written.context("writing the reference")?,
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs with these settings over `defaults`, or says what is wrong with them.
fn with_settings(
    settings: &cli::Settings,
    defaults: &Config,
    run: impl FnOnce(Loaded) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    match settings.load(defaults, environment()) {
        Ok(loaded) => run(loaded),
        Err(error) => {
            complain(&error);
            Ok(ExitCode::from(BAD_SETTINGS))
        }
    }
}

fn serve(
    loaded: Loaded,
    start: impl AsyncFnOnce(Loaded, LogLevel) -> Result<App, StartError>,
) -> anyhow::Result<ExitCode> {
    let log_level = telemetry::init_log(&loaded.config.log).context("the log")?;
    runtime(&loaded.config)?.block_on(async {
        let (signals, hangups) = handlers()?;
        let app = start(loaded, log_level).await?;
        let outcome = app.run(signals, hangups).await.context("serving")?;
        Ok(if outcome.cut() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

#[cfg(feature = "demo")]
fn demo(once: bool, loaded: Loaded) -> anyhow::Result<ExitCode> {
    let log_level = telemetry::init_log(&loaded.config.log).context("the log")?;
    runtime(&loaded.config)?.block_on(async {
        let mut out = std::io::stdout();
        Box::pin(gateway::demo::run(once, (loaded, log_level), handlers()?, &mut out)).await
    })
}

/// The process's signals; to be heard from before the start on.
fn handlers() -> anyhow::Result<(
    impl Stream<Item = Signal> + Unpin + Send,
    impl Stream<Item = ()> + Unpin + Send,
)> {
    let what = "no signal handler";
    Ok((drain::signals().context(what)?, drain::hangups().context(what)?))
}

fn doctor(json: bool, config: &Config) -> anyhow::Result<ExitCode> {
    let diagnosis = runtime(config)?.block_on(gateway::doctor::diagnose(config))?;
    let mut out = std::io::stdout();
    let written =
        if json { diagnosis.write_json(&mut out) } else { diagnosis.write_text(&mut out) };
    written.context("writing the report")?;
    Ok(if diagnosis.is_healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn runtime(config: &Config) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.threads > 0 {
        builder.worker_threads(config.threads);
    }
    builder.thread_name("hearth").enable_all().build().context("no threads to run on")
}

fn complain(error: &dyn Error) {
    let mut stderr = std::io::stderr();
    let (bold, plain) = if stderr.is_terminal() { ("\u{1b}[1;31m", "\u{1b}[0m") } else { ("", "") };
    if writeln!(stderr, "{bold}hearth:{plain} {}", story(error)).is_err() {
        // Nobody listens: the exit code says it.
    }
}
