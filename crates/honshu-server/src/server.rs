//! A running server: built, started, drained, stopped.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use honshu_api::edge::{EdgeLimits, Listener, ListenerTag, Tls, serve};
use honshu_api::{App, AppParts, Readiness, RegionRoute};
use honshu_control::{Bootstrap, Control, Initialised};
use honshu_domain::{Catalogue, UsageLog};
use honshu_gateway::{Gateway, GatewayParts, Limits};
use honshu_models::ModelStore;
use honshu_responses::{Runtime, Seal};
use honshu_store::{
    DataDir, OpenError, Shipper, Spool, SpoolLimits, SqliteResponses, SqliteStore, Store,
};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::catalogue::NodeCatalogue;
use crate::config::Config;
use crate::endpoints::{Endpoint, EndpointsFile};
use crate::engine::Engine;
use crate::error::StartError;
use crate::logging::{self, LogFormat};
use crate::models::{Current, Models};
use crate::{providers, responses};

/// How often the last uses of keys are written down.
const LAST_USED_INTERVAL: Duration = Duration::from_secs(10);

/// After the drain's end, how long failed runs get to say so before connections are cut.
const LAST_WORDS: Duration = Duration::from_millis(1_000);

/// How a server is started.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The address, over the configuration's.
    pub listen: Option<SocketAddr>,
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// How log lines look, unless the configuration says.
    pub log_format: LogFormat,
    /// Whether there are log lines below warnings.
    pub log: bool,
    /// The program whose command `engine-self-test` is run as a child before the engine is trusted.
    pub executable: Option<PathBuf>,
}

/// A server that takes requests. Dropping it without [`Server::stop`] leaves its tasks to the runtime's end.
pub struct Server {
    endpoints: Vec<Endpoint>,
    made_tenancy: bool,
    readiness: Arc<Readiness>,
    gateways: Vec<Gateway>,
    drain_timeout: Duration,
    /// Stops accepting and lets answers end.
    drain: CancellationToken,
    /// Cuts connections.
    cut: CancellationToken,
    /// Ends runs.
    shutdown: CancellationToken,
    edge: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
    hup: Arc<Notify>,
    control: Arc<Control>,
    runtime: Runtime,
    spool: Arc<Spool>,
    store: Arc<dyn Store>,
    _endpoints_file: EndpointsFile,
    /// Locked as long as the server lives.
    _directory: DataDir,
}

impl Server {
    /// Builds and starts everything. When it returns, requests are taken.
    ///
    /// # Errors
    /// [`StartError`], one line with the next step. Nothing is left half written.
    pub async fn start(options: ServeOptions) -> Result<Self, StartError> {
        let config = match &options.config {
            Some(path) => Config::read(path, options.listen)?,
            None => Config::without_file(options.listen)?,
        };
        let format = match config.telemetry.log_format.as_deref() {
            Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            _ => options.log_format,
        };
        let level = if options.log { "info" } else { "error" };
        logging::install(format, config.telemetry.log.as_deref().unwrap_or(level));

        // What the configuration alone decides comes first: nothing is made for a server that cannot start.
        let providers = providers::build(&config)?;
        let engine = Engine::new(&config.engine, options.executable);
        engine.check_files(&config.models)?;
        let tls = match &config.tls {
            Some(tls) => Some(Arc::new(Tls::open(&tls.certificate, &tls.key)?)),
            None => None,
        };

        let directory = DataDir::open(&options.data_dir).map_err(OpenError::from)?;
        refuse_strangers(&config, &directory)?;
        let listeners = bind(&config, tls.as_ref()).await?;
        let store = SqliteStore::open(&directory)?;
        let bootstrap = Bootstrap::new(crate::clock(), crate::entropy());
        let pepper = bootstrap.pepper(&directory)?;
        let regions: Vec<_> = config.regions.iter().map(|r| r.region.clone()).collect();
        let home = regions
            .first()
            .cloned()
            .unwrap_or_else(honshu_domain::Region::local);
        let made_tenancy = matches!(
            bootstrap.run(&store, &directory, &pepper, &home).await?,
            Initialised::Made { .. }
        );
        let store: Arc<dyn Store> = Arc::new(store);
        let spool = Arc::new(Spool::open(&directory, SpoolLimits::default())?);
        let kept = Arc::new(SqliteResponses::open(&directory)?);
        let seal = Seal::new(&pepper.derive("sealed items"))
            .map_err(|error| StartError::Responses(error.to_string()))?;
        let control = Control::open(
            Arc::clone(&store),
            pepper,
            regions,
            crate::clock(),
            crate::entropy(),
        )
        .await?;

        let models = Arc::new(Models {
            store: ModelStore::open(options.data_dir.join("models"))
                .map_err(|error| StartError::Models(error.to_string()))?,
            engine,
            clock: crate::clock(),
            config_path: options.config.clone(),
            listen: options.listen,
            current: Mutex::new(Current::new(config.clone(), providers)),
        });
        let catalogue = Arc::new(NodeCatalogue::new(models.snapshot()?));

        let shutdown = CancellationToken::new();
        let gateways: HashMap<Arc<str>, Gateway> = config
            .regions
            .iter()
            .map(|region| {
                let gateway = Gateway::new(GatewayParts {
                    catalogue: Arc::clone(&catalogue) as Arc<dyn Catalogue>,
                    authorizer: Arc::new(control.authorizer(&region.region)),
                    usage: Arc::clone(&spool) as Arc<dyn UsageLog>,
                    clock: crate::clock(),
                    entropy: crate::entropy(),
                    limits: limits(&config),
                    shutdown: shutdown.clone(),
                });
                (region.region.name_arc(), gateway)
            })
            .collect();
        let runtime = responses::build(&config, kept, gateways.clone(), &control, seal);
        let found = runtime
            .recover()
            .await
            .map_err(|error| StartError::Responses(error.to_string()))?;
        if found != honshu_responses::RunsAgain::default() {
            tracing::info!(
                again = found.again,
                failed = found.failed,
                "background responses of the last start were taken up"
            );
        }
        let readiness = Arc::new(Readiness::default());
        let app = App::new(AppParts {
            gateways: gateways.clone(),
            control: Arc::clone(&control),
            catalogue: Arc::clone(&catalogue) as Arc<dyn Catalogue>,
            clock: crate::clock(),
            regions: routes(&config),
            timeouts: config.timeouts(),
            runtime: runtime.clone(),
            readiness: Arc::clone(&readiness),
        });

        let endpoints = endpoints(&config, &listeners);
        let endpoints_file = EndpointsFile::write(&options.data_dir, &endpoints)?;
        let (drain, cut, hup) = (
            CancellationToken::new(),
            CancellationToken::new(),
            Arc::new(Notify::new()),
        );
        #[expect(clippy::disallowed_methods, reason = "`stop` waits for it")]
        let edge = tokio::spawn({
            let (router, limits) = (app.router(), edge_limits(&config));
            let (drain, cut) = (drain.clone(), cut.clone());
            async move {
                let report = serve(listeners, router, limits, drain, cut).await;
                if report.cut > 0 {
                    tracing::warn!(connections = report.cut, "cut at the end of the drain");
                }
            }
        });
        #[expect(clippy::disallowed_methods, reason = "`stop` ends them")]
        let background = vec![
            tokio::spawn(Shipper::new(Arc::clone(&spool), Arc::clone(&store)).run()),
            tokio::spawn(models.follow(Arc::clone(&catalogue), Arc::clone(&hup))),
            tokio::spawn(write_last_uses(Arc::clone(&control))),
            tokio::spawn(runtime.clone().retain()),
        ];
        Ok(Self {
            endpoints,
            made_tenancy,
            readiness,
            gateways: gateways.into_values().collect(),
            drain_timeout: config.drain,
            drain,
            cut,
            shutdown,
            edge,
            background,
            hup,
            control,
            runtime,
            spool,
            store,
            _endpoints_file: endpoints_file,
            _directory: directory,
        })
    }

    /// Where each region answers.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Whether this start made the tenancy.
    pub fn made_tenancy(&self) -> bool {
        self.made_tenancy
    }

    /// Serves until SIGTERM or Ctrl-C, then drains. A second signal cuts at once. SIGHUP takes the
    /// configuration again.
    ///
    /// # Errors
    /// When signals cannot be listened to.
    pub async fn run_until_signal(self) -> Result<(), StartError> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| {
            signal(kind).map_err(|source| StartError::File {
                path: PathBuf::from("signal"),
                source,
            })
        };
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut hang_up = listen(SignalKind::hangup())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => self.hup.notify_one(),
            }
        }
        let (cut, shutdown) = (self.cut.clone(), self.shutdown.clone());
        #[expect(
            clippy::disallowed_methods,
            reason = "it waits for a second signal, and ends with the process"
        )]
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            shutdown.cancel();
            cut.cancel();
        });
        self.stop().await;
        Ok(())
    }

    /// Drains and stops: no new requests, running answers for the drain's time, then the rest fails with
    /// `server_shutdown`; every outcome is recorded.
    pub async fn stop(mut self) {
        self.readiness.drain();
        self.drain.cancel();
        self.runtime.drain();
        let deadline = tokio::time::Instant::now() + self.drain_timeout;
        let ended = tokio::time::timeout_at(deadline, &mut self.edge).await;
        // Background responses have no connection; they get the same time.
        let _ = tokio::time::timeout_at(deadline, self.runtime.settled()).await;
        self.shutdown.cancel();
        if ended.is_err()
            && tokio::time::timeout(LAST_WORDS, &mut self.edge)
                .await
                .is_err()
        {
            self.cut.cancel();
            let _ = (&mut self.edge).await;
        }
        for gateway in &self.gateways {
            gateway.settled().await;
        }
        self.runtime.settled().await;
        for task in &self.background {
            task.abort();
        }
        if let Err(error) = self.control.flush_last_used().await {
            tracing::warn!(%error, "the last uses of keys were not written");
        }
        let shipper = Shipper::new(Arc::clone(&self.spool), Arc::clone(&self.store));
        if let Err(error) = shipper.ship().await {
            tracing::warn!(%error, "usage rows stay in the spool until the next start");
        }
    }
}

/// Before anybody ran `init`, nothing but loopback is served.
fn refuse_strangers(config: &Config, directory: &DataDir) -> Result<(), StartError> {
    if directory.has_database() {
        return Ok(());
    }
    match config
        .regions
        .iter()
        .filter_map(|region| region.listen)
        .find(|address| !address.ip().is_loopback())
    {
        Some(address) => Err(StartError::NotInitialised { address }),
        None => Ok(()),
    }
}

async fn bind(config: &Config, tls: Option<&Arc<Tls>>) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::new();
    for region in &config.regions {
        let Some(address) = region.listen else {
            continue;
        };
        let socket = TcpListener::bind(address)
            .await
            .map_err(|error| StartError::Listen {
                address,
                reason: error.to_string(),
            })?;
        listeners.push(Listener {
            socket,
            tag: ListenerTag(region.region.name_arc()),
            tls: tls.cloned(),
        });
    }
    Ok(listeners)
}

fn endpoints(config: &Config, listeners: &[Listener]) -> Vec<Endpoint> {
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let first = listeners
        .first()
        .and_then(|listener| listener.socket.local_addr().ok());
    config
        .regions
        .iter()
        .filter_map(|region| {
            let own = listeners
                .iter()
                .find(|listener| *listener.tag.0 == *region.region.name())
                .and_then(|listener| listener.socket.local_addr().ok());
            let url = match (own, region.hosts.first(), first) {
                (Some(address), _, _) => format!("{scheme}://{}", reachable(address)),
                (None, Some(host), Some(address)) => {
                    format!("{scheme}://{host}:{}", address.port())
                }
                _ => return None,
            };
            Some(Endpoint {
                region: region.region.name().to_owned(),
                url,
            })
        })
        .collect()
}

/// An address that a client on this machine can connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::from(([127, 0, 0, 1], address.port()))
    } else {
        address
    }
}

fn routes(config: &Config) -> Vec<RegionRoute> {
    config
        .regions
        .iter()
        .map(|region| RegionRoute {
            region: region.region.clone(),
            listener: region.listen.map(|_| ListenerTag(region.region.name_arc())),
            hosts: region.hosts.clone(),
        })
        .collect()
}

fn limits(config: &Config) -> Limits {
    let mut limits = Limits::default();
    let narrow = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    if let Some(runs) = config.limits.runs_max {
        limits.runs_max = narrow(runs);
    }
    if let Some(runs) = config.limits.runs_per_principal_max {
        limits.runs_per_principal_max = narrow(runs);
    }
    limits
}

fn edge_limits(config: &Config) -> EdgeLimits {
    let mut limits = EdgeLimits {
        // The server ends runs first and cuts connections itself.
        drain_timeout: config.drain + LAST_WORDS + LAST_WORDS,
        ..EdgeLimits::default()
    };
    if let Some(connections) = config.limits.connections_max {
        limits.connections_max = connections;
    }
    if let Some(bytes) = config.limits.body_bytes_max {
        limits.body_bytes_max = bytes;
    }
    if let Some(bytes) = config.limits.upload_bytes_max {
        limits.upload_bytes_max = bytes;
    }
    limits
}

async fn write_last_uses(control: Arc<Control>) {
    loop {
        tokio::time::sleep(LAST_USED_INTERVAL).await;
        if let Err(error) = control.flush_last_used().await {
            tracing::warn!(%error, "the last uses of keys were not written");
        }
    }
}
