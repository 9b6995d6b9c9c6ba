//! The program `loadtest`: parses, runs one job, exits 1 if it failed or a gate does not hold.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use loadtest::cli::Cli;
use router::story::story;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let outcome = match cli.command.runtime().build() {
        Ok(runtime) => runtime.block_on(cli.command.run(&mut io::stdout())),
        Err(error) => return fail(&format!("the runtime cannot start: {error}")),
    };
    match outcome {
        Ok(shortfalls) if shortfalls.is_empty() => ExitCode::SUCCESS,
        Ok(shortfalls) => fail(&format!("{} requirement(s) not met, see above", shortfalls.len())),
        Err(error) => fail(&story(error.as_ref())),
    }
}

/// Tells why on standard error; when even that is closed, the exit code has to do.
fn fail(reason: &str) -> ExitCode {
    match writeln!(io::stderr(), "loadtest: {reason}") {
        Ok(()) | Err(_) => ExitCode::FAILURE,
    }
}
