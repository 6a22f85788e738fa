//! Builds the parts of control out of its configuration, starts them and ends them in order.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use control_core::io::Input;
use control_core::{ControlCore, CoreConfig};
use control_store::{Store, StoreConfig};
use link_daemon::admin::{self, Admin};
use link_daemon::drain::{self, Shutdown, Trigger};
use link_daemon::log::LogLevel;
use link_daemon::metrics::Metrics;
use link_daemon::quic::{self, DATAGRAM_BYTES_USUAL, EndpointPlan, LINK_ALPN};
use link_daemon::reload::{self, Fixed, Reload, Requests};
use link_daemon::tls::Tls;
use link_daemon::{clock, entropy};
use link_proto::CallSid;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::api_listener::ApiListener;
use crate::commit_queue::{CommitQueue, StoreWriter};
use crate::config::Config;
use crate::core_task::{CoreHandle, MediaLayer, Parts, WebClient, core_task};
use crate::directory;
use crate::housekeeping;
use crate::link_server::{LinkHandle, LinkServer};
use crate::metrics::{LinkMetrics, register_snapshots};
use crate::rows::Rows;

/// Where control listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// REST API (TCP).
    pub api: SocketAddr,
    /// Edges (UDP).
    pub link: SocketAddr,
    /// Operators (TCP).
    pub admin: SocketAddr,
}

/// What the parts towards customers are built from.
#[derive(Clone)]
pub struct Context {
    /// Configuration.
    pub config: Arc<Config>,
    /// How customers reach the API, without slash at the end.
    pub public_url: String,
    /// Store.
    pub store: Store,
    /// The way to the core.
    pub core: CoreHandle,
    /// The core's knowledge of accounts, numbers and applications.
    pub directory: DirectorySource,
    /// Rung when the outbox has new rows.
    pub callbacks: Arc<Notify>,
    /// HTTP to customers' servers.
    pub web: Arc<dyn WebClient>,
    /// Prompts.
    pub media: Arc<dyn MediaLayer>,
    /// Registry.
    pub metrics: Metrics,
}

/// The parts towards customers: what is built before the core and what is built around it.
pub struct Services {
    /// HTTP to customers' servers.
    pub web: Arc<dyn WebClient>,
    /// Prompts.
    pub media: Arc<dyn MediaLayer>,
    /// The REST API.
    pub api: fn(Context) -> Router,
    /// Tasks that run until shutdown, for example the sender of status callbacks.
    pub tasks: Vec<ServiceTask>,
}

/// A task that runs until shutdown.
pub type ServiceTask = Box<dyn FnOnce(Context, Shutdown) -> crate::core_task::Boxed<()> + Send>;

/// Brings the core up to date when the API has changed accounts, numbers or applications.
#[derive(Clone)]
pub struct DirectorySource {
    store: Store,
    config: Arc<RwLock<Arc<Config>>>,
    core: CoreHandle,
    version: Arc<AtomicU64>,
}

impl DirectorySource {
    /// Reads the store again; returns when the core works with it.
    ///
    /// # Errors
    /// If the store cannot be read or the core has ended.
    pub async fn reload(&self) -> anyhow::Result<()> {
        let (store, config) = (self.store.clone(), self.config());
        let version = self.next_version();
        let read = move || directory::load(store.reader(), &config, version);
        let directory = tokio::task::spawn_blocking(read).await??;
        self.core.committed(Input::Directory(Box::new(directory))).await?;
        Ok(())
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Works with another configuration from now on: adds its accounts and numbers that are not
    /// there yet, and takes over its routes and limits of calls.
    ///
    /// # Errors
    /// If the store cannot be written or the core has ended.
    pub async fn change(&self, config: Config) -> anyhow::Result<()> {
        let config = Arc::new(config);
        let (store, added) = (self.store.clone(), config.clone());
        let bootstrap = move || {
            let mut rng = entropy::seeded_rng()?;
            directory::bootstrap(&store, &added, &mut rng, clock::unix_ms())
        };
        tokio::task::spawn_blocking(bootstrap).await??;
        let settings = Box::new(config.core.clone());
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        self.core.committed(Input::Settings(settings)).await?;
        self.reload().await
    }

    /// Reads the store again whenever the core has changed what belongs in the directory.
    async fn follow(self, changed: Arc<Notify>, mut shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                () = changed.notified() => {}
            }
            if let Err(error) = self.reload().await {
                tracing::error!(%error, "the directory could not be read again");
            }
        }
    }

    /// Rises, across restarts as well.
    fn next_version(&self) -> u64 {
        let now = clock::unix_ms();
        let newer = |last: u64| now.max(last.saturating_add(1));
        let last =
            self.version.fetch_update(Ordering::AcqRel, Ordering::Acquire, |v| Some(newer(v)));
        newer(last.unwrap_or_default())
    }
}

/// A control node that runs.
pub struct Control {
    /// Where it listens.
    pub addresses: Addresses,
    /// The way to its core.
    pub core: CoreHandle,
    /// Its store.
    pub store: Store,
    /// Its edges.
    pub link: LinkHandle,
    /// Its metrics.
    pub metrics: Metrics,
    /// Listeners and senders.
    outer: JoinSet<()>,
    /// The core's task, which must outlive them.
    inner: JoinSet<()>,
    end_inner: Trigger,
    shutdown: Shutdown,
    drain_max: Duration,
    /// Asks for a new configuration.
    pub reload: Reload,
    /// Who asks; to be answered by whoever has the file.
    pub reloads: Option<Requests>,
    /// What the core works with.
    pub directory: DirectorySource,
}

/// The whole life of a control node: start, run until shutdown, drain. Reads `path` again when it is
/// asked to.
///
/// # Errors
/// If it cannot start: what is wrong, with address or file.
pub async fn run(
    config: Config,
    log: LogLevel,
    shutdown: Shutdown,
    path: &Path,
) -> anyhow::Result<()> {
    let services = crate::services::build(&config)?;
    let mut current = config.clone();
    let mut control = start(config, services, log.clone(), shutdown).await?;
    tokio::spawn(control.reload.clone().on_hangup());
    let reloads = control.reloads.take();
    let directory = control.directory.clone();
    let serve = async {
        let Some(mut reloads) = reloads else { return };
        while let Some(reply) = reloads.next().await {
            let outcome = reload_file(path, &mut current, &directory, &log).await;
            // Whoever asked may have gone.
            let _ = reply.send(reload::logged(outcome));
        }
    };
    tokio::select! {
        () = control.finished() => {}
        // Ends when nobody can ask any more, and that is not before the end.
        () = async { serve.await; std::future::pending().await } => {}
    }
    Ok(())
}

/// Reads the file again and takes over what can change while calls are up.
async fn reload_file(
    path: &Path,
    current: &mut Config,
    directory: &DirectorySource,
    log: &LogLevel,
) -> reload::Outcome {
    let mut new = crate::config::load(path).map_err(|problems| problems.to_string())?;
    let mut fixed = Fixed::default();
    keep_fixed(&mut fixed, current, &mut new);
    log.set(&new.log)?;
    directory.change(new.clone()).await.map_err(|error| format!("{error:#}"))?;
    *current = new;
    Ok(fixed.told())
}

/// What sockets, threads and memory were made from.
fn keep_fixed(fixed: &mut Fixed, old: &Config, new: &mut Config) {
    fixed.keep("node", &old.node, &mut new.node);
    fixed.keep("region", &old.region, &mut new.region);
    fixed.keep("data_folder", &old.data_folder, &mut new.data_folder);
    fixed.keep("api.listen", &old.api.listen, &mut new.api.listen);
    fixed.keep("api.public_url", &old.api.public_url, &mut new.api.public_url);
    fixed.keep("link.listen", &old.link.listen, &mut new.link.listen);
    fixed.keep("link.edges_max", &old.link.edges_max, &mut new.link.edges_max);
    fixed.keep("link.streams_max and its times", &old.link.settings, &mut new.link.settings);
    fixed.keep("link.*_file", &old.link.tls, &mut new.link.tls);
    fixed.keep("admin.listen", &old.admin, &mut new.admin);
    fixed.keep("log.format", &old.log_format, &mut new.log_format);
    fixed.keep("speech", &old.speech, &mut new.speech);
    fixed.keep("prompts", &old.prompts, &mut new.prompts);
    fixed.keep("web.ca_file", &old.web.ca_file, &mut new.web.ca_file);
    fixed.keep("media.listen", &old.media.listen, &mut new.media.listen);
    fixed.keep("media.cache", &old.media.cache, &mut new.media.cache);
    fixed.keep("media.transcoder", &old.media.transcoder, &mut new.media.transcoder);
    fixed.keep("media.speech", &old.media.speech, &mut new.media.speech);
    fixed.keep("drain.max_s", &old.drain_max, &mut new.drain_max);
}

/// Starts a control node; returns once everything listens.
///
/// # Errors
/// If it cannot start: what is wrong, with address or file.
pub async fn start(
    config: Config,
    services: Services,
    log: LogLevel,
    shutdown: Shutdown,
) -> anyhow::Result<Control> {
    let config = Arc::new(config);
    let sockets = Sockets::bind(&config).await?;
    let addresses = sockets.addresses()?;
    let store = open_store(&config)?;
    let metrics = Metrics::new("control");
    let link = LinkHandle::new(LinkMetrics::new(&metrics));
    let callbacks = Arc::new(Notify::new());
    let directory_changed = Arc::new(Notify::new());
    let public_url = config.api.public_url.clone();
    let public_url = public_url.unwrap_or_else(|| format!("http://{}", addresses.api));

    let version = clock::unix_ms();
    let core = load_core(&config, &store, &public_url, version)?;
    let (tables_sender, tables) = watch::channel(Arc::new(core.tables().clone()));
    let writer = StoreWriter { store: store.clone(), rows: rows(&config) };
    let (core, task) = core_task(Parts {
        core,
        commits: CommitQueue::new(writer),
        web: services.web.clone(),
        media: services.media.clone(),
        link: link.clone(),
        callbacks: callbacks.clone(),
        directory: directory_changed.clone(),
        tables: tables_sender,
    });
    register_snapshots(&metrics, core.clone(), store.clone());

    let (end_inner, inner_shutdown) = drain::switch();
    let mut inner = JoinSet::new();
    inner.spawn(task.run(inner_shutdown, config.drain_max));

    let context = Context {
        directory: DirectorySource {
            store: store.clone(),
            config: Arc::new(RwLock::new(config.clone())),
            core: core.clone(),
            version: Arc::new(AtomicU64::new(version)),
        },
        config: config.clone(),
        public_url,
        store: store.clone(),
        core: core.clone(),
        callbacks: callbacks.clone(),
        web: services.web.clone(),
        media: services.media.clone(),
        metrics: metrics.clone(),
    };
    // Rows that an earlier process left in the outbox.
    callbacks.notify_one();
    let server = LinkServer {
        node: config.node.clone(),
        region: config.region.clone(),
        link: link.clone(),
        core: core.clone(),
        media: services.media.clone(),
        tables,
        recordings: rows(&config).recordings,
        edges_max: config.link.edges_max,
        streams_max: config.link.settings.streams_max,
    };
    let (reload, reloads) = reload::channel();
    let mut outer =
        spawn_outer(sockets, server, services, &context, (log, reload.clone()), &shutdown);
    let source = context.directory.clone();
    outer.spawn(source.follow(directory_changed, shutdown.clone()));
    outer.spawn(housekeeping::run(
        context.store.clone(),
        context.directory.clone(),
        rows(&config).recordings,
        shutdown.clone(),
    ));
    announce(&config, &addresses, &context.public_url);
    let drain_max = config.drain_max;
    Ok(Control {
        addresses,
        core,
        store,
        link,
        metrics,
        outer,
        inner,
        end_inner,
        shutdown,
        drain_max,
        reload,
        reloads: Some(reloads),
        directory: context.directory,
    })
}

impl Control {
    /// Waits for shutdown and drains: first what listens and sends, then the core and its
    /// commits. Calls go on at their edges.
    pub async fn finished(mut self) {
        self.shutdown.requested().await;
        let cut_off = drain::join_all(self.outer, self.drain_max).await;
        self.end_inner.shut_down();
        let margin = Duration::from_secs(1);
        drain::join_all(self.inner, self.drain_max + margin).await;
        tracing::info!(cut_off, "control has ended");
    }
}

struct Sockets {
    api: TcpListener,
    admin: TcpListener,
    link: quinn::Endpoint,
}

impl Sockets {
    async fn bind(config: &Config) -> anyhow::Result<Self> {
        let tls = Tls::load(&config.link.tls)?;
        let plan = EndpointPlan {
            key: "link.listen",
            bind: config.link.listen,
            alpn: LINK_ALPN,
            accept: true,
            socket_buffer_bytes: 4 << 20,
            datagram_bytes_max: DATAGRAM_BYTES_USUAL,
            transport: config.link.settings.transport(),
        };
        let parts = (
            admin::bind(config.api.listen, "api.listen").await,
            admin::bind(config.admin, "admin.listen").await,
            quic::endpoint(&tls, &plan),
        );
        match parts {
            (Ok(api), Ok(admin), Ok(link)) => Ok(Self { api, admin, link }),
            // Everything that is taken is told at once.
            (api, admin, link) => {
                let all = [api.err(), admin.err(), link.err()];
                let all: Vec<String> =
                    all.into_iter().flatten().map(|error| format!("{error:#}")).collect();
                anyhow::bail!("{}", all.join("\n"))
            }
        }
    }

    fn addresses(&self) -> anyhow::Result<Addresses> {
        Ok(Addresses {
            api: self.api.local_addr()?,
            link: self.link.local_addr()?,
            admin: self.admin.local_addr()?,
        })
    }
}

fn rows(config: &Config) -> Rows {
    Rows { recordings: config.data_folder.join("recordings") }
}

fn open_store(config: &Config) -> anyhow::Result<Store> {
    let recordings = rows(config).recordings;
    std::fs::create_dir_all(&recordings).with_context(|| recordings.display().to_string())?;
    let path = config.data_folder.join("control.db");
    Store::open(&StoreConfig::at(&path)).with_context(|| path.display().to_string())
}

/// The core with directory and sessions from the store.
fn load_core(
    config: &Config,
    store: &Store,
    public_url: &str,
    version: u64,
) -> anyhow::Result<ControlCore> {
    let mut rng = entropy::seeded_rng()?;
    directory::bootstrap(store, config, &mut rng, clock::unix_ms())?;
    let directory = directory::load(store.reader(), config, version)?;
    let settings = CoreConfig { public_url: public_url.to_owned(), ..config.core.clone() };
    let mut core = ControlCore::new(settings, directory, rng);
    let sessions: Vec<(CallSid, u64, String)> = store
        .reader()
        .sessions()?
        .into_iter()
        .filter_map(|row| {
            let name = row.sid.parse().ok().zip(String::from_utf8(row.body).ok());
            if name.is_none() {
                tracing::error!(session = row.sid, "a stored session cannot be read");
            }
            name.map(|(session, json)| (session, row.epoch, json))
        })
        .collect();
    if !sessions.is_empty() {
        tracing::info!(sessions = sessions.len(), "going on with the sessions of the store");
    }
    core.load(clock::now(), clock::unix_ms(), sessions);
    let unreadable = core.metrics().states_unreadable;
    if unreadable > 0 {
        tracing::error!(unreadable, "sessions of the store cannot be read; their calls are ended");
    }
    Ok(core)
}

fn spawn_outer(
    sockets: Sockets,
    server: LinkServer,
    services: Services,
    context: &Context,
    (log, reload): (LogLevel, Reload),
    shutdown: &Shutdown,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(server.serve(sockets.link, shutdown.clone()));
    let store = context.store.clone();
    let admin = Admin::new(context.metrics.clone(), log).reload(reload);
    let admin = admin.calls(move || calls(store.clone()));
    let end = shutdown.clone();
    tasks.spawn(async move {
        if let Err(error) = admin.serve(sockets.admin, end).await {
            tracing::error!(%error, "the admin port broke");
        }
    });
    let api = (services.api)(context.clone());
    let mut end = shutdown.clone();
    tasks.spawn(async move {
        let server = axum::serve(ApiListener::new(sockets.api), api);
        let server = server.with_graceful_shutdown(async move { end.requested().await });
        if let Err(error) = server.await {
            tracing::error!(%error, "the API port broke");
        }
    });
    for task in services.tasks {
        tasks.spawn(task(context.clone(), shutdown.clone()));
    }
    tasks
}

/// `/calls`: legs that have not ended.
async fn calls(store: Store) -> serde_json::Value {
    let read = move || store.reader().calls_unfinished();
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(calls)) => json!(calls),
        Ok(Err(error)) => json!({ "error": error.to_string() }),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

/// What somebody wants to know who has just started it.
fn announce(config: &Config, addresses: &Addresses, public_url: &str) {
    tracing::info!(node = %config.node, region = %config.region, "control runs");
    tracing::info!("  REST API   http://{}  (customers use {public_url})", addresses.api);
    tracing::info!("  edges      udp {}  (QUIC, mutual TLS)", addresses.link);
    tracing::info!("  operators  http://{}/metrics /ready /live /calls", addresses.admin);
    tracing::info!("  data       {}", config.data_folder.display());
    tracing::info!(
        sessions_max = config.core.sessions_max,
        edges_max = config.link.edges_max,
        streams_per_edge_max = config.link.settings.streams_max,
        "  limits"
    );
}
