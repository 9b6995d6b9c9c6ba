use clap::Parser;
#[derive(Parser)]
enum Cli {
    #[command(hide = true)]
    Upstream(loadtest::upstream::Args),
    #[command(hide = true)]
    Saturate(loadtest::saturate::Args),
}
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Cli::parse() {
        Cli::Upstream(args) => loadtest::upstream::run(&args, &mut std::io::stdout()).await,
        Cli::Saturate(args) => loadtest::saturate::run(&args, &mut std::io::stdout()).await,
    }
}
