//! `cargo xtask demo`: the whole product at work, with a real API server and unmodified bots.
//!
//! Everything lives in one directory, one cgroup and one network namespace of its own ([`crate::stage`]); nothing outside them
//! is governed, no packet leaves the machine, and nothing stays behind.

mod bots;
mod proxy;
mod server;

use anyhow::{Result, bail};
use clap::Args;

use crate::paths::Paths;
use crate::stage::process::Stop;
use crate::stage::{self, Plan, Stage};
use crate::system::{self, Need};
use crate::{build, test};

use proxy::Proxy;
use server::Server;

/// The directory of the stage; the policies in `policies/demo` name it.
const ROOT: &str = "/run/vouchsafe-demo";
/// The programs of the bots: copies, so that policies can name programs that nothing else runs.
const PLAN: Plan = Plan {
    kind: "demo",
    hosts: &[(server::ADDRESS, server::HOST)],
    programs: &[
        ("/usr/bin/curl", "bots/curl"),
        ("/usr/bin/python3", "bots/python3"),
        ("curl", "elsewhere/curl"),
    ],
};

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
        let flags: &[&str] = if options.keep { &["--keep"] } else { &[] };
        return stage::again_as_root(paths, PLAN.kind, flags);
    }
    test::require_host()?;
    test::mount_bpffs()?;

    let stop = Stop::on_signals()?;
    let stage = Stage::set(&PLAN, &stop)?;
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
    println!("\nsetting the stage in {ROOT} (cgroup {})", stage.governed.display());
    stage.write("invoices.py", include_str!("demo/invoices.py"), 0o755)?;
    let server = Server::start(stage)?;
    println!("  API server    nginx, https://{} at {}:443", server::HOST, server::ADDRESS);
    let daemon = paths.daemon(false);
    let proxy = Proxy::start(stage, &daemon, &paths.root.join("policies/demo"), &server)?;
    println!("  proxy         {} run --config {}", paths.shown(&daemon), proxy.daemon.config.display());
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
    let (bot, root) = (stage.path("as-bot"), ROOT);
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
