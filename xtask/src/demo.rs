//! `cargo xtask demo`: the whole product at work, with a real API server and unmodified bots.
//!
//! Everything lives in one directory, one cgroup and one network namespace of its own ([`stage`]); nothing outside them
//! is governed, no packet leaves the machine, and nothing stays behind.

mod bots;
mod process;
mod proxy;
mod server;
mod stage;

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::paths::Paths;
use crate::system::{self, Need};
use crate::{build, sh, test};

use process::Stop;
use proxy::Proxy;
use server::Server;
use stage::Stage;

/// What the demo runs beside the daemon.
const NEEDS: &[Need] = test::NEEDS;

/// How to show it, as the command line says it.
#[derive(Args)]
pub(crate) struct Options {
    /// Stay up after the last bot, and say what to try.
    #[arg(long)]
    keep: bool,
    /// The daemon is built already (set when the demo calls itself through sudo).
    #[arg(long, hide = true)]
    built: bool,
}

/// Runs the demo; fails when a bot got what it should not, or not what it should.
pub(crate) fn run(paths: &Paths, options: &Options) -> Result<()> {
    if !options.built {
        system::ensure(NEEDS)?;
        build::all(paths, false)?;
    }
    if !system::is_root() {
        return again_as_root(paths, options);
    }
    test::require_host()?;
    test::mount_bpffs()?;

    let stop = Stop::on_signals()?;
    let stage = Stage::set(&stop)?;
    let outcome = play(paths, options, &stage);
    if outcome.is_err() {
        stage.show_log();
    }
    // The stage is taken down here, whatever the outcome was.
    drop(stage);
    println!("\ncleaned up: processes, cgroup, network namespace, pins and files of the demo are gone");
    outcome
}

/// Everything between setting the stage and taking it down.
fn play(paths: &Paths, options: &Options, stage: &Stage) -> Result<()> {
    println!("\nsetting the stage in {} (cgroup {})", stage::ROOT, stage.governed.display());
    let server = Server::start(stage)?;
    println!("  API server    nginx, https://{} at {}:443", server::HOST, server::ADDRESS);
    let daemon = paths.daemon(false);
    let proxy = Proxy::start(stage, &daemon, &paths.root.join("policies/demo"), &server)?;
    println!("  proxy         {} run --config {}", paths.shown(&daemon), proxy.config.display());
    println!("  policies      policies/demo, the key is in the proxy's store only ({})", server.key_shown());

    let (calls, wrong) = bots::play(stage, &server)?;
    proxy.wait_for_records(calls)?;
    proxy.show("the journal: who called what, and what was decided", &["audit", "tail"])?;
    proxy.show("the journal holds together", &["audit", "verify"])?;
    proxy.show("what is attached, and how each identity stands", &["status"])?;
    proxy.search_for_key(&server)?;

    if options.keep {
        keep(stage, &proxy)?;
    }
    if wrong > 0 {
        bail!("{wrong} bots did not get what they should; look for ✗ above");
    }
    Ok(())
}

/// Waits for Ctrl-C.
fn keep(stage: &Stage, proxy: &Proxy) -> Result<()> {
    let (bot, root) = (stage.path("as-bot"), stage::ROOT);
    println!("\nthe demo stays up until Ctrl-C. To try, from another terminal, as root:");
    println!("  {} curl https://{}/v1/invoices/7", bot.display(), server::HOST);
    println!("  {} curl -X DELETE https://{}/v1/invoices/7", bot.display(), server::HOST);
    println!("  {} python3 {root}/invoices.py GET https://{}/v1/invoices/7", bot.display(), server::HOST);
    println!("  {root}/outside curl https://{}/v1/invoices/7        (not governed, no key)", server::HOST);
    println!("  {}", proxy.shown(&["audit", "tail"]));
    println!("  {}", proxy.shown(&["status"]));
    println!("  edit {root}/policies/ and watch the proxy take it: {root}/proxy.log");
    while !stage.stop.is_wanted() {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Ok(())
}

/// Runs this program again through sudo: the build belongs to the user, the kernel to root.
fn again_as_root(paths: &Paths, options: &Options) -> Result<()> {
    if sh::find_program("sudo").is_none() {
        bail!("the demo loads BPF programs and needs root, and sudo is not installed; run it as root");
    }
    let ourselves = env::current_exe().context("cannot find this program's own path")?;
    let mut target = std::ffi::OsString::from("CARGO_TARGET_DIR=");
    target.push(&paths.target);
    let mut command = Command::new("sudo");
    command.arg("env").arg(target).arg(Path::new(&ourselves)).args(["demo", "--built"]);
    if options.keep {
        command.arg("--keep");
    }
    sh::run(&mut command)
}
