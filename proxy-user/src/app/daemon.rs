//! The daemon from its first line to its last.
use std::{
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, anyhow};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

use super::{
    authority::{self, Authority},
    bounds::Bounds,
    descriptors::raise_descriptors,
    drain::Drain,
    handler::DaemonHandler,
    identifier::HostIdentifier,
    issuer::Publisher,
    journal,
    listeners::Acceptor,
    namespaces::Namespaces,
    network, observer, reidentify,
    reload::{self, Reloader},
    rotation::Rotator,
    supervisor,
    witness::Witnesses,
};
use crate::{
    authorize::{PolicyStore, Unidentified},
    config::{self, Config},
    connection::{Counters, Services, Settings},
    control::{Control, Handler},
    credentials::{
        Credentials, Fingerprints, Outcall, Redaction, StorePaths, give_back_memory, protect_process_memory,
    },
    doctor::Doctor,
    forward::{Dialer, ForwardLimits, Forwarder},
    http::HttpLimits,
    kernel::{Cgroups, Kernel, Plan, Protecting, Reading, inherited, netns_cookie, own, take_listener},
    limits::{Backoff, Ledger, Registry},
    record::Recorder,
    sinks,
    trust::{BotTls, Ca, SystemRoots, UpstreamTls},
    uplink::Uplink,
    workload::{Workloads, identify::Matcher},
};

/// How long the end waits for a server that gives a new refresh token, and for one that takes back what it leased.
const SETTLE_TIME: Duration = Duration::from_secs(5);

/// Why the daemon ends when somebody took its listener down.
const LISTENER_LOST: &str = "the listener was taken down";

const NO_COOKIE: &str =
    "this kernel cannot name network namespaces (SO_NETNS_COOKIE); it is there from Linux 5.14";

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What kept the daemon from starting, in words: what, where, what to do.
pub fn run(config_path: &Path) -> anyhow::Result<ExitCode> {
    own::keep_little();
    let config = Arc::new(Config::load(config_path)?);
    // Meanwhile others can work: so is the first random number, for which AWS-LC measures the processor's jitter for some 20 ms.
    let reading = Reading::begin();
    let _ = std::thread::Builder::new().name("random".to_owned()).spawn(|| aws_lc_rs::rand::fill(&mut [0]));
    let roots = config.upstream.system_roots.then(SystemRoots::begin);
    init_log(&config)?;
    protect_process_memory().iter().for_each(|problem| tracing::warn!("{problem}"));
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("vouchsafe")
        .on_thread_park(own::trim_at_rest)
        .on_thread_stop(own::trim_own)
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve(config, reading, roots));
    // A task that hangs must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

fn init_log(config: &Config) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.level)
        .map_err(|error| anyhow!("log.level {:?} is not understood: {error}", config.log.level))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        // A log that cannot be written (a full disk) must not stop what it tells of: the line about that would panic.
        .log_internal_errors(false)
        .try_init()
        .map_err(|error| anyhow!("cannot start the log: {error}"))
}

async fn serve(
    config: Arc<Config>,
    reading: Reading,
    roots: Option<SystemRoots>,
) -> anyhow::Result<ExitCode> {
    let (started, running) = (SystemTime::now(), Instant::now());
    for dir in [&config.state, &config.runtime] {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("cannot make the directory {}", dir.display()))?;
    }

    let ledger = Arc::new(Ledger::open(&config.state)?);
    let limits = Arc::new(Registry::new(Arc::clone(&ledger)));
    let ca = Arc::new(Ca::open(&config.state, authority::terms(&config.ca))?);
    let upstream = &config.upstream;
    let upstream_tls = UpstreamTls::with(&upstream.roots, roots, &ca.roots(), upstream.connect_timeout)?;
    let bot_tls = BotTls::new(Arc::clone(&ca), config.limits.sniff_timeout)?;
    let store = StorePaths::in_directories(&config.state, &config.runtime).store;
    let publisher = config.issuer.as_ref().map(|issuer| Publisher::open(issuer, &store)).transpose()?;
    let fingerprints = Fingerprints::open(&config.state).context(
        "the key of the fingerprints in the journal cannot be had (when it is damaged, remove it: the next start makes \
         another, and fingerprints begin anew)",
    )?;
    let uplink = Uplink::new(&config.upstream).map(Arc::new);
    let outcall = Outcall::new(upstream_tls.clone()).through(uplink.clone());
    let login = config.upstream.proxy_credential.as_ref();
    let mut credentials = Credentials::new(store, outcall.clone()).logging_in(uplink.as_deref(), login);
    if let Some(publisher) = &publisher {
        credentials = credentials.with_issuer(Arc::clone(publisher.issuer()));
    }
    let secrets = config.journal.sinks.values().flat_map(|sink| sink.secrets()).cloned().collect();
    let credentials = credentials.sending(secrets).reaching(config.hashicorp.as_ref(), config.exec.clone());
    let credentials = Arc::new(credentials);
    if let Some(problem) = credentials.problem() {
        tracing::error!("{problem}");
    }
    // What can be wrong in files comes before anything is attached or listens.
    let (first, last, identities, warnings) =
        reload::first(&config.policies, !config.journal.auditors.is_empty(), &limits, &credentials)
            .map_err(|errors| anyhow!("the policy is refused, so nothing is served:\n{errors}"))?;
    reload::warn(&warnings);
    let observes = config.mode == config::Mode::Observe;
    if observes {
        tracing::warn!(
            "mode = \"observe\": nothing is denied by policy on this host; what would be is recorded"
        );
    }
    let first = first.observing(observes);
    let authority = Arc::new(Authority::new(Arc::clone(&ca), &config.ca));
    let new_ca = authority.require(first.set())?;

    let mut options = journal::options(&config);
    options.start.policy_generation = Some(first.generation());
    options.start.observes = observes;
    options.start.policy_digest = Some(last.digest.clone());
    options.start.identity_keys = reidentify::keys(first.set());
    // A new sink begins with what this run writes.
    let sinks = sinks::Plan::new(&config)?;
    let recorder = Arc::new(Recorder::open(&config.journal_dir(), options)?);
    let around = sinks::Around {
        config: &config,
        own_roots: ca.roots(),
        uplink: uplink.clone(),
        credentials: Some(Arc::clone(&credentials)),
    };
    let sinks = Arc::new(sinks.start(&around, &recorder.signal())?);
    let witnesses = Arc::new(Witnesses::new(&config, &recorder, &outcall)?);
    if let Some(why) = new_ca {
        authority.note(&recorder, why, None);
    }

    let mut left = inherited();
    let sockets = [bind(config.listen.ipv4.into(), &mut left)?, bind(config.listen.ipv6.into(), &mut left)?];
    if !left.is_empty() {
        // Of a configuration that named other addresses.
        supervisor::forget_listeners();
    }
    supervisor::keep_listeners(&sockets);
    let issuer_socket = match config.issuer.as_ref().and_then(|issuer| issuer.listen) {
        Some(address) => Some(Publisher::bind(address).await?),
        None => None,
    };
    let home = sockets.iter().map(netns_cookie).next().context("no listener")?.context(NO_COOKIE)?;
    let control = Control::bind(&config.control_socket(), Some(&config.control.group))?;

    let cgroups =
        Arc::new(Cgroups::open(config.kernel.cgroup.as_deref(), config.kernel.unit_root.as_deref())?);
    let workloads = Arc::new(Workloads::new(Arc::clone(&cgroups), config.containers.clone()));
    let rules = network::kernel_rules(first.set(), &config.network.allow, first.resolvers(), last.rules_at);
    let plan = Plan {
        cgroups: &cgroups,
        pin: &config.kernel.pin,
        listen: config.listen.all(),
        home,
        ports: &config.ports(),
        generation: first.generation(),
        rules: &rules,
        protect: config.protect,
        verbose: tracing::enabled!(tracing::Level::DEBUG),
    };
    let (kernel, handles) = Kernel::start(&plan, reading)?;
    if let Protecting::Unavailable(why) = kernel.protecting() {
        tracing::warn!("protect = true, but others than root are not kept from tracing: {why}");
    }
    let (kernel, origins, network) = (Arc::new(kernel), Arc::new(handles.origins), Arc::new(handles.network));
    let programs = Arc::new(handles.programs);

    let (drain, drained) = watch::channel(false);
    let policy = Arc::new(PolicyStore::new(first));
    let dialer = Dialer::new(config.listen.all().to_vec(), config.upstream.connect_timeout).through(uplink);
    let services = Arc::new(Services {
        policy,
        identifier: Arc::new(HostIdentifier::new(
            Arc::clone(&programs),
            Arc::clone(&network),
            unidentified(&config),
        )),
        callers: Arc::default(),
        recorder: Arc::clone(&recorder),
        credentials,
        bot_tls,
        doctor: Doctor::new(config.state.clone()),
        redaction: Redaction::new(
            fingerprints.clone(),
            config.journal.fingerprint_headers.clone(),
            config.journal.fingerprint_query.clone(),
        ),
        forward: Forwarder::new(dialer, upstream_tls, fingerprints, forward_limits(&config)),
        settings: settings(&config),
        backoff: Backoff::default(),
        counters: Counters::new(config.limits.refusals_per_identity),
        drain: drained,
    });
    let reloader = Arc::new(Reloader::new(&config, &services, network, limits, Arc::clone(&authority), last));

    let places = Arc::new(Semaphore::new(config.limits.connections));
    let without_origin = Arc::new(AtomicU64::new(0));
    let (close, closing) = watch::channel(false);
    let acceptor = Acceptor {
        services: Arc::clone(&services),
        origins: Arc::clone(&origins),
        workloads: Arc::clone(&workloads),
        places,
        without_origin: Arc::clone(&without_origin),
        home,
        closing,
    };
    let namespaces = Arc::new(Namespaces::new(config.listen.all(), handles.served, acceptor.clone()));
    let rotator = Arc::new(Rotator::new(config.rotation.clone(), Arc::clone(&services)));
    let handler: Arc<dyn Handler> = Arc::new(DaemonHandler {
        config: Arc::clone(&config),
        services: Arc::clone(&services),
        reloader: Arc::clone(&reloader),
        rotator: Arc::clone(&rotator),
        sinks: Arc::clone(&sinks),
        authority: Arc::clone(&authority),
        witnesses: Arc::clone(&witnesses),
        kernel: Arc::clone(&kernel),
        origins,
        without_origin,
        governed: cgroups.governed().to_owned(),
        namespaces: Arc::clone(&namespaces),
        listeners: config.listen.all().map(|address| address.to_string()).to_vec(),
        matcher: Matcher::new(Arc::clone(&programs)),
        programs,
        workloads: Arc::clone(&workloads),
        started,
        running,
    });

    let mut tasks = JoinSet::new();
    let (down, mut taken_down) = mpsc::channel::<()>(1);
    for socket in sockets {
        let down = down.clone();
        let dead = move || {
            let _ = down.try_send(());
        };
        acceptor.accept_from(socket, dead).context(NO_COOKIE)?;
    }
    {
        let kernel = Arc::clone(&kernel);
        tasks.spawn(async move { kernel.forward_messages().await });
    }
    tasks.spawn(observer::observe(handles.events, Arc::clone(&services), workloads, Arc::clone(&namespaces)));
    tasks.spawn(Arc::clone(&namespaces).leave_deserted());
    let bounds = Bounds::new(Arc::clone(&kernel), Arc::clone(&namespaces), Arc::clone(&services));
    let (end_bounds, bounds_end) = watch::channel(false);
    let bounds = tokio::spawn(bounds.watch(bounds_end));
    let watching = Arc::clone(&reloader);
    if let Some(watch) = tokio::task::spawn_blocking(move || watching.watch()).await? {
        tasks.spawn(Arc::clone(&reloader).follow(watch));
    }
    tasks.spawn(Arc::clone(&reloader).end_what_is_over());
    tasks.spawn(remember(Arc::clone(&ledger)));
    tasks.spawn(Arc::clone(&services.credentials).follow_files());
    tasks.spawn(rotator.keep());
    tasks.spawn(Arc::clone(&authority).keep(Arc::clone(&services)));
    if let Some(publisher) = &publisher {
        tasks.spawn(Arc::clone(publisher).keep());
        issuer_socket.map(|socket| tasks.spawn(Arc::clone(publisher).serve(socket)));
    }
    tasks.spawn(Arc::clone(&witnesses).keep());
    tasks.spawn(supervisor::watchdog());
    tasks.spawn(control.serve(Arc::clone(&handler), std::future::pending()));

    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    let ready = format!("{identities} identities; governing {}", cgroups.governed().display());
    tracing::info!(
        taken_over = kernel.taken_over(),
        identities,
        cgroup = %cgroups.governed().display(),
        "serving"
    );
    supervisor::ready(&ready);
    // Before calls bring secrets: what is given back must not be locked meanwhile.
    tokio::task::spawn_blocking(|| {
        if let Err(problem) = give_back_memory(own::let_go, own::unlock_files) {
            tracing::warn!("{problem}");
        }
    });
    let reason = loop {
        tokio::select! {
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            // A new start opens it again; until then nothing is served, and nobody else's listener is.
            Some(()) = taken_down.recv() => break LISTENER_LOST,
            _ = hangup.recv() => {
                supervisor::reloading();
                let handler = Arc::clone(&handler);
                // The outcome is in the log, the journal and the status.
                if let Ok(Err(failure)) = tokio::task::spawn_blocking(move || handler.reload(None)).await {
                    tracing::error!("{failure}");
                }
                supervisor::ready(&ready);
            }
        }
    };

    supervisor::stopping();
    tracing::info!(
        reason,
        "stopping; what is attached stays, so governed workloads have no network until the next start"
    );
    let end = Drain { begin: drain, close, counters: &services.counters, limit: config.limits.drain };
    // When somebody took the listener down, another may already have its port: the sooner the next start, the better.
    if reason != LISTENER_LOST {
        tokio::select! {
            () = end.old_ones() => {}
            _ = terminate.recv() => tracing::warn!("told again to stop: open calls are cut off"),
            _ = interrupt.recv() => tracing::warn!("told again to stop: open calls are cut off"),
        }
    }
    namespaces.hold_back();
    tokio::select! {
        () = end.all() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let (settled, given_back) = tokio::join!(
        tokio::time::timeout(SETTLE_TIME, services.credentials.settle()),
        tokio::time::timeout(SETTLE_TIME, services.credentials.end()),
    );
    if settled.is_err() {
        tracing::warn!(
            "a refresh token is under way and its server is slow: the new one may be lost, sign in again then"
        );
    }
    if given_back.is_err() {
        tracing::warn!("what is leased at [hashicorp] could not be given back in time: it ends by itself");
    }
    tasks.abort_all();
    end_bounds.send_replace(true);
    let bounds = bounds.await;
    let recorder = Arc::clone(&recorder);
    let end = move || {
        if let Err(error) = ledger.write(SystemTime::now()) {
            tracing::error!(%error, "what was used of the limits is not kept");
        }
        if let Ok(mut bounds) = bounds {
            bounds.look_for_the_last_time();
        }
        let stopped = recorder.stop(reason);
        sinks.stop();
        stopped
    };
    tokio::task::spawn_blocking(end).await??;
    witnesses.end().await;
    Ok(if reason == LISTENER_LOST { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Keeps what was used of the limits on the disk, while it changes.
async fn remember(ledger: Arc<Ledger>) {
    let mut each = tokio::time::interval(Duration::from_secs(1));
    let mut told = false;
    loop {
        each.tick().await;
        let ledger = Arc::clone(&ledger);
        let Ok(written) = tokio::task::spawn_blocking(move || ledger.write(SystemTime::now())).await else {
            return;
        };
        match written {
            Err(error) if !told => {
                tracing::error!(%error, "what was used of the limits is not kept");
                told = true;
            }
            Err(_) => {}
            Ok(()) => told = false,
        }
    }
}

/// Takes over a listener that an earlier run left with systemd, or binds one; a port that is taken is told with what to do.
fn bind(address: SocketAddr, left: &mut Vec<std::net::TcpListener>) -> anyhow::Result<TcpListener> {
    let mut bound = || {
        if let Some(listener) = take_listener(left, address) {
            return TcpListener::from_std(listener);
        }
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart must not wait for connections of the last run in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(4096)
    };
    bound().map_err(|error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow!(
            "{address} is in use by another program\n  help: see who with `ss -ltnp 'sport = :{}'`, or set another port in [listen]",
            address.port()
        ),
        _ => anyhow!("cannot listen on {address}: {error}"),
    })
}

fn unidentified(config: &Config) -> Unidentified {
    match config.unidentified {
        config::Unidentified::Deny => Unidentified::Deny,
        config::Unidentified::Pass => Unidentified::Pass,
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        unidentified: unidentified(config),
        ports: config.ports(),
        sniff_time: config.limits.sniff_timeout,
        http: HttpLimits {
            header_bytes: u32::try_from(config.limits.header_bytes).unwrap_or(u32::MAX),
            header_time: config.limits.header_timeout,
            write_time: config.limits.write_timeout,
            idle_time: config.limits.idle_timeout,
            ..HttpLimits::default()
        },
        connections_per_identity: u64::try_from(config.limits.connections_per_identity).unwrap_or(u64::MAX),
    }
}

fn forward_limits(config: &Config) -> ForwardLimits {
    ForwardLimits {
        response_time: config.upstream.response_timeout,
        idle_time: config.limits.idle_timeout,
        ..ForwardLimits::default()
    }
}
