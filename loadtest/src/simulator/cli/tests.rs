use clap::Parser;

use super::{Args, Config};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

#[test]
fn without_options_the_command_has_the_librarys_defaults() {
    let cli = Cli::try_parse_from(["simulate"]).expect("no option is needed");
    assert_eq!(format!("{:?}", cli.args.config()), format!("{:?}", Config::default()));
}

#[test]
fn kv_events_are_switched_off_by_a_word() {
    let parse = |value| Cli::try_parse_from(["simulate", "--kv-events", value]);
    assert!(!parse("false").expect("a word").args.config().engine.kv_events);
    assert!(parse("true").expect("a word").args.config().engine.kv_events);
    assert!(parse("perhaps").is_err());
}
