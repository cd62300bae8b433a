use crate::app::{App, now};
use crate::bootstrap::{self, Ready};
use crate::fleet::Node;
use crate::record::{decode, state_of};
use crate::{Config, ServerError, http, jobs, reconcile};
use landfall_api_types::node::Report;
use landfall_pki::{Credentials, tls};
use landfall_store::{Store, StoreOptions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How often the server's own certificate is looked at.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Runs the configuration server until `shutdown`. When it answers, `<state>/ready.json` says
/// where.
///
/// # Errors
/// [`ServerError`]: the state directory, the database or the listener can't be used.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), ServerError> {
    let failed = |source| ServerError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let url = format!("https://{}", reachable(listener.local_addr().map_err(failed)?));
    let identity = bootstrap::open(&config.state_dir, &url)?;
    let options = StoreOptions {
        owner: url.clone(),
        #[cfg(feature = "testing")]
        tripwire: config.tripwire.clone(),
    };
    let store = Store::open(&config.state_dir.join("landfall.db"), options, now()).await?;
    let ready = Ready {
        url,
        fingerprint: identity.authority.fingerprint().to_string(),
        passphrase_file: config.state_dir.join("passphrase"),
        operator_credentials: config.state_dir.join("operator"),
    };
    let acceptor =
        TlsAcceptor::from(tls::rest_server(&identity.credentials).map_err(ServerError::Pki)?);
    let credentials = identity.credentials;
    let app = App::new(store, identity.authority, identity.passphrase, config.timing, shutdown);
    let app = Arc::new(app);
    load_nodes(&app).await?;
    jobs::resume_all(&app).await?;
    app.spawn(reconcile::run(Arc::clone(&app)));
    app.spawn(keep_certificate(Arc::clone(&app), credentials));
    bootstrap::write_ready(&config.state_dir, &ready)?;
    tracing::info!(url = ready.url, "the configuration server answers");
    let router = http::router(Arc::clone(&app));
    http::serve(listener, acceptor, router, app.shutdown.clone()).await;
    app.ended().await;
    app.store.close().await;
    Ok(())
}

/// The address as others reach it: a listener on every address is told as this machine's own.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
        }
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
        }
        _ => address,
    }
}

/// Registered nodes with their last reports: what is shown is old until they report again, but not
/// nothing.
async fn load_nodes(app: &App) -> Result<(), ServerError> {
    for row in app.store.read().await?.nodes().await? {
        let role = state_of("role of a node", &row.role)?;
        let mut node = Node::new(row.id, row.name, role, row.key);
        node.address = row.address;
        node.version = row.version;
        node.reported = row.last_report;
        node.persisted = Some(Instant::now());
        if let Some(report) = row.report {
            // A report of an earlier version that is not understood is only missed until the next
            // one.
            let report: Result<Report, _> = decode("report", &report);
            node.report = report.unwrap_or_default();
        }
        app.fleet.add(node);
    }
    Ok(())
}

/// The server's own certificate is renewed like everybody's; running listeners take it at once.
async fn keep_certificate(app: Arc<App>, credentials: Credentials) {
    loop {
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(RENEWAL_INTERVAL) => {}
        }
        if credentials.renewal_due(SystemTime::now())
            && let Err(error) = bootstrap::renew(&app.authority, &credentials)
        {
            tracing::error!(%error, "the server's certificate could not be renewed");
        }
    }
}
