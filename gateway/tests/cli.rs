//! The program's command line, as a person at a terminal meets it.

use std::process::{Command, Output};

/// Runs the program to its end, with no environment of ours.
fn hearth(args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hearth"))
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .expect("the program runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_reference_with_pods_added_is_a_configuration_to_start_with() {
    let reference = hearth(&["config"], &[]);
    assert_eq!(reference.status.code(), Some(0));
    let text = stdout(&reference).replace("endpoints: []", "endpoints: [http://10.0.0.1:8000]");
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let file = folder.path().join("hearth.yaml");
    std::fs::write(&file, text).expect("there is room");
    let file = file.to_str().expect("the path is text");
    let check = hearth(&["check-config", file], &[]);
    assert_eq!((check.status.code(), stdout(&check)), (Some(0), format!("{file}: ok\n")));
    let check = hearth(&["check-config", file], &[("HEARTH_THREDS", "1")]);
    assert_eq!((check.status.code(), stdout(&check).as_str()), (Some(2), ""));
    assert!(stderr(&check).contains("did you mean `HEARTH_THREADS`"), "{}", stderr(&check));
}

#[test]
fn what_is_wrong_ends_with_2_and_names_it() {
    for (args, env, named) in [
        (&["serve"][..], &[][..], "endpoints: no pods"),
        (&["serve", "--deadline-connect", "1s"], &[], "--deadlines-connect"),
        (&["serve", "--cors-enabled", "false"], &[], "`--cors-enabled=false`"),
        (&["serve", "--log-level", "infoo"], &[], "`infoo` is not a level; did you mean `info`?"),
        (&["serve", "--config", "none.yaml"], &[], "none.yaml: "),
        (&["serve"], &[("HEARTH_CONFIG", "none.yaml")], "none.yaml: "),
        (&["serve"], &[("HEARTH_LISTEN", "everywhere")], "HEARTH_LISTEN: "),
        (&["check-config", "none.yaml"], &[], "none.yaml: "),
        (&["frobnicate"], &[], "'frobnicate'"),
        (&["serve", "--port", "8080"], &[], "`--listen 0.0.0.0:8080`"),
        (&["serve", "--port=8080"], &[], "`--listen 0.0.0.0:8080`"),
        (&["epp", "--port", "9002"], &[], "`--epp-listen 0.0.0.0:9002`"),
        (&["serve", "hearth.yaml"], &[], "`--config hearth.yaml`"),
        (&["check-config", "-c", "none.yaml"], &[], "none.yaml: "),
        (
            &["serve", "--listen", "22280"],
            &[],
            "`22280` is not an IP address with a port, like `0.0.0.0:8080`",
        ),
        (
            &["serve"],
            &[("HEARTH_LISTEN", "localhost:22280")],
            "HEARTH_LISTEN: `localhost:22280` is not",
        ),
        (&["serve", "--listen", "0.0.0.0:80000"], &[], "`0.0.0.0:80000` is not"),
    ] {
        let output = hearth(args, env);
        let complaint = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {complaint}");
        assert!(complaint.contains(named), "{args:?}: {complaint}");
        assert!(!complaint.contains('\u{1b}'), "no colours in a pipe: {complaint}");
        assert_eq!(stdout(&output), "", "{args:?}");
    }
}

#[test]
fn an_address_in_use_is_told_once_and_by_its_setting() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = listener.local_addr().expect("it is bound").to_string();
    for key in ["listen", "admin-listen"] {
        let free = if key == "listen" { "--admin-listen" } else { "--listen" };
        let flag = format!("--{key}");
        let args = ["serve", "--endpoints", "a:1", &flag, &taken, free, "127.0.0.1:0"];
        let output = hearth(&args, &[]);
        let complaint = stderr(&output);
        let named = format!("hearth: {}: cannot listen on {taken}: ", key.replace('-', "_"));
        assert_eq!(output.status.code(), Some(1), "{complaint}");
        assert!(complaint.contains(&named), "{complaint}");
        assert_eq!(complaint.matches("in use").count(), 1, "{complaint}");
        let variable = format!("HEARTH_{}", key.replace('-', "_").to_uppercase());
        let moved = format!("(`--{key} ADDRESS` or {variable} moves it)");
        assert!(complaint.contains(&moved), "{complaint}");
    }
}

#[test]
fn help_is_a_word_too() {
    for args in [&["help"][..], &["help", "check-config"]] {
        let output = hearth(args, &[]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stdout(&output).contains("Usage: hearth"), "{}", stdout(&output));
    }
}

#[test]
fn the_version_is_that_of_the_crate() {
    let output = hearth(&["--version"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), format!("hearth {}\n", env!("CARGO_PKG_VERSION")));
}
