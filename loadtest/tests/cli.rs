//! The program as a user meets it: exit codes, sentences, and which setting wins.

use std::process::{Command, Output};

/// Runs `loadtest` with these arguments and exactly these settings.
fn loadtest(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(arguments)
        .env_clear()
        .envs(settings.iter().copied())
        .output()
        .expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A URL that is refused at once, so that it shows which one was taken without any traffic.
const FROM_ENV: (&str, &str) = ("GATEWAY_URL", "ftp://from-env");

#[test]
fn a_flag_beats_the_environment_and_the_environment_beats_the_namespace() {
    let output = loadtest(&["cache-hit", "--gateway-url", "ftp://from-flag"], &[FROM_ENV]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "loadtest: `ftp://from-flag` is not an http:// or https:// URL: its scheme is `ftp`\n"
    );
    let output = loadtest(&["cache-hit"], &[FROM_ENV, ("NS", "llm-d")]);
    assert!(stderr(&output).contains("`ftp://from-env`"), "{}", stderr(&output));
}

#[test]
fn the_older_pipelines_settings_are_read() {
    for (name, value, complaint) in [
        ("REQUESTS", "0", "--requests is 0"),
        ("SLEEP_SECONDS", "-1", "--sleep-seconds must be 0 to 3600"),
        ("WARMUP_COUNT", "many", "invalid value 'many' for '--warmup-count <N>'"),
        ("PROM_URL", "ftp://prometheus", "`ftp://prometheus`"),
        ("POD_URLS", "ftp://pod", "`ftp://pod`"),
        ("HOST_HEADER", "a\nb", "cannot be sent as a Host header"),
    ] {
        let output = loadtest(&["cache-hit"], &[(name, value)]);
        assert_ne!(output.status.code(), Some(0));
        assert!(stderr(&output).contains(complaint), "{name}: {}", stderr(&output));
    }
}

#[test]
fn an_unknown_subcommand_or_flag_exits_2_and_names_the_nearest() {
    let output = loadtest(&["cache-hits"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cache-hit"), "{}", stderr(&output));
    let output = loadtest(&["bench", "--rate-typ", "poisson"], &[]);
    assert!(stderr(&output).contains("--rate-type"), "{}", stderr(&output));
}

#[test]
fn a_gateway_that_is_away_fails_the_job_with_its_address() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", free.local_addr().expect("bound"));
    drop(free);
    let settings = [("GATEWAY_URL", url.as_str()), ("SLEEP_SECONDS", "0")];
    let output = loadtest(&["cache-hit"], &settings);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&url), "{}", stderr(&output));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("failing fast"), "{printed}");
}

#[test]
fn a_port_in_use_is_told_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = listener.local_addr().expect("bound");
    let output = loadtest(&["simulate", "--port", &taken.port().to_string()], &[]);
    let complaint = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains(&format!("cannot listen on {taken}: ")), "{complaint}");
    assert_eq!(complaint.matches("in use").count(), 1, "{complaint}");
}
