//! `huskd`: what kubelet and crictl talk to.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use husk_cri::config::{self, Config, LogLevel};
use husk_cri::daemon::Daemon;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Serves Kubernetes' Container Runtime Interface: every pod in a microVM of its own
#[derive(Debug, Parser)]
#[command(name = "huskd", version, args_conflicts_with_subcommands = true)]
struct Cli {
    /// The configuration; without this one /etc/husk/config.toml, if it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to log, whatever the configuration says
    #[arg(long, value_enum, value_name = "LEVEL")]
    log: Option<LogLevel>,
    /// How to log it
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Show huskd's version
    Version,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the file with every key, its default and what it is for
    Default,
    /// Say whether a file is sound
    Check {
        /// Without one: /etc/husk/config.toml
        file: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("huskd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        None => serve(cli.config.as_deref(), cli.log, cli.log_format),
        Some(Command::Version) => {
            println!("huskd {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Some(Command::Config { command: ConfigCommand::Default }) => {
            print!("{}", config::DEFAULT_FILE);
            Ok(())
        }
        Some(Command::Config { command: ConfigCommand::Check { file } }) => {
            let file = file.unwrap_or_else(|| PathBuf::from(config::PATH));
            Config::load(Some(&file))?;
            println!("{} is sound", file.display());
            Ok(())
        }
    }
}

fn serve(file: Option<&Path>, level: Option<LogLevel>, format: LogFormat) -> anyhow::Result<()> {
    let config = Config::load(file)?;
    log_to_stderr(level.unwrap_or(config.log), format);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start a runtime")?;
    let served = runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        Daemon::open(config)?.serve(stop).await?;
        anyhow::Ok(())
    });
    // What still works on an image ends when nobody wants it any more.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// Of Husk everything that `level` has, of libraries at most what a user may want to know.
fn log_to_stderr(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let targets = Targets::new().with_default(level.min(LevelFilter::INFO)).with_target("husk", level);
    let subscriber = tracing_subscriber::registry().with(targets);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // The journal has its own clock. Only one subscriber can be set, and this is the only place.
    let _ = match (format, std::env::var_os("JOURNAL_STREAM")) {
        (LogFormat::Json, _) => subscriber.with(lines.json().flatten_event(true)).try_init(),
        (LogFormat::Text, Some(_)) => subscriber.with(lines.without_time()).try_init(),
        (LogFormat::Text, None) => subscriber.with(lines).try_init(),
    };
}
