//! `vouchsafe detach`: takes the kernel side off, and leaves word of it in the journal.
//!
//! A running daemon has the journal, so it is asked; without one the record is written here, before anything is taken off.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use proxy_journal::{Detach, Record};

use crate::app::journal;
use crate::config::Config;
use crate::control::client::{self, ClientError};
use crate::control::detach::{COMMAND, Order, Report};
use crate::forward::error::chain;
use crate::kernel;
use crate::record::Recorder;
use crate::sinks;

/// Arguments of `vouchsafe detach`.
#[derive(Debug, Args)]
pub struct DetachArgs {
    /// Take it off also when that cannot be written into the journal
    #[arg(long)]
    force: bool,
}

/// Takes the kernel side off and says what was taken.
///
/// # Errors
/// It cannot be journalled, and is not forced; or the kernel side cannot be taken off.
pub fn run(args: &DetachArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let order = Order::of_this_process(args.force);
    let asked = client::call_with(&config.control_socket(), COMMAND, order.arguments());
    let report: Report = match asked {
        Ok(report) => report,
        Err(ClientError::NotRunning { .. }) => alone(&order, config)?,
        // A daemon that does not answer still has the journal.
        Err(error @ (ClientError::Io { .. } | ClientError::NotUnderstood { .. })) if args.force => {
            take_off(config, Some(error.to_string()))?
        }
        Err(error @ (ClientError::Io { .. } | ClientError::NotUnderstood { .. })) => {
            return Err(error).context(NOTHING);
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(why) = &report.unrecorded {
        eprintln!("vouchsafe: this is not in the journal: {why}");
    }
    match report.programs.len() {
        0 => println!("nothing was attached below {}", config.kernel.pin.display()),
        n => println!("took off {n} programs; workloads are governed no more"),
    }
    Ok(ExitCode::SUCCESS)
}

const NOTHING: &str = "nothing was taken off, because it cannot be journalled (--force does it nevertheless)";

/// Without a daemon: the journal is ours for as long as it takes.
fn alone(order: &Order, config: &Config) -> anyhow::Result<Report> {
    // Whoever may not look would see nothing and take it for the answer.
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "only root can see and take off what is attached below {}; use sudo",
            config.kernel.pin.display()
        );
    }
    let programs: Vec<String> = kernel::attached(&config.kernel.pin).into_iter().map(str::to_owned).collect();
    if programs.is_empty() {
        // Maps may be left.
        return take_off(config, None);
    }
    let pin = config.kernel.pin.display().to_string();
    let record = Detach { by: order.by.clone(), pin, programs, error: None };
    let mut options = journal::options(config);
    options.instead = Some(Record::Detach(record.clone()));
    let shown = sinks::Plan::journald_alone(config);
    let recorder = match Recorder::open(&config.journal_dir(), options) {
        Ok(recorder) => recorder,
        Err(error) if order.force => return take_off(config, Some(chain(&error))),
        Err(error) => return Err(error).context(NOTHING),
    };
    let around = sinks::Around { config, own_roots: Vec::new(), uplink: None, credentials: None };
    // It is in the journal; whoever it cannot be shown to now is shown it by the next start.
    let _shown = shown.and_then(|plan| plan.start(&around, &recorder.signal()));
    take_off(config, None).inspect_err(|error| {
        let record = Detach { error: Some(format!("{error:#}")), ..record };
        if let Err(unwritten) = recorder.note(Record::Detach(record)) {
            eprintln!("vouchsafe: {}", chain(&unwritten));
        }
    })
}

fn take_off(config: &Config, unrecorded: Option<String>) -> anyhow::Result<Report> {
    let pin = &config.kernel.pin;
    let programs = kernel::attached(pin).into_iter().map(str::to_owned).collect();
    if let Err(error) = kernel::detach(pin) {
        bail!("cannot take the kernel side off {}: {error}", pin.display());
    }
    Ok(Report { programs, unrecorded })
}
