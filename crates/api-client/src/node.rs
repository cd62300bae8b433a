use crate::error::from_pki;
use crate::http::{Call, Http, Repeat};
use crate::node_role;
use crate::url::ServerUrl;
use hyper::Method;
use landfall_api_types::node::{Enroll, Enrolled, OrderResult, Orders, Renew, Report};
use landfall_api_types::resource::NodeRole;
use landfall_api_types::{ApiError, codes};
use landfall_pki::{Certificate, Credentials, Fingerprint, Member, PkiError, tls};
use landfall_types::OrderId;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What a role needs to join the fleet.
#[derive(Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// `https://host:port`.
    pub server_url: String,
    /// Of the fleet's authority, as `landfall server` printed it.
    pub fingerprint: Fingerprint,
    /// The registration passphrase.
    pub passphrase: String,
    /// Role that is asked for.
    pub role: NodeRole,
    /// Unique name.
    pub name: String,
    /// `host:port` of the replication listener, if there is one.
    pub address: Option<String>,
    /// Version of Landfall here.
    pub version: String,
}

/// A role's client: cheap to clone.
#[derive(Clone)]
pub struct NodeClient {
    credentials: Credentials,
    http: Arc<Http>,
}

impl NodeClient {
    /// Opens the credentials in `dir`, or enrols if there are none. One attempt: repeat it with a
    /// [`crate::Backoff`] while the error's class is transient.
    ///
    /// # Errors
    /// `server-unreachable`, `fingerprint-mismatch`, `bad-passphrase`, `name-taken`, or
    /// `not-authorized` when the credentials are damaged or belong to another fleet, role or name
    /// than asked for.
    pub async fn open_or_enroll(dir: &Path, enrolment: &Enrolment) -> Result<Self, ApiError> {
        if !Credentials::exist(dir) {
            return Self::enroll(dir, enrolment).await;
        }
        let client = Self::open(dir)?;
        let member = client.credentials.member();
        let same = client.credentials.fingerprint() == enrolment.fingerprint
            && member.role == node_role(enrolment.role)
            && member.name == enrolment.name;
        if !same {
            let cause = format!(
                "the credentials in {} are for {} {:?} of another enrolment",
                dir.display(),
                member.role,
                member.name
            );
            return Err(ApiError::new(&codes::NOT_AUTHORIZED, cause)
                .cure("use another state directory, or the role, name and fingerprint it was enrolled with"));
        }
        if member.server_url == enrolment.server_url {
            return Ok(client);
        }
        // The server has moved; its authority, which is what counts, is the same.
        Self::with(client.credentials, &enrolment.server_url)
    }

    /// Opens existing credentials.
    ///
    /// # Errors
    /// `not-authorized` when they can't be used.
    pub fn open(dir: &Path) -> Result<Self, ApiError> {
        let credentials = Credentials::open(dir).map_err(|error| from_pki(&error))?;
        let url = credentials.member().server_url.clone();
        Self::with(credentials, &url)
    }

    fn with(credentials: Credentials, url: &str) -> Result<Self, ApiError> {
        let tls = tls::rest_client(&credentials).map_err(|error| from_pki(&error))?;
        Ok(Self { http: Arc::new(Http::new(ServerUrl::parse(url)?, tls)), credentials })
    }

    async fn enroll(dir: &Path, enrolment: &Enrolment) -> Result<Self, ApiError> {
        // The key is durable before the request: when the answer is lost, the repeated request
        // carries the same key, and the server recognizes the node instead of refusing the name as
        // taken.
        let (key_pem, csr_pem) =
            Credentials::key_and_request(dir).map_err(|error| from_pki(&error))?;
        let tls = tls::enrolling_client(enrolment.fingerprint).map_err(|error| from_pki(&error))?;
        let http = Http::new(ServerUrl::parse(&enrolment.server_url)?, tls);
        let request = Enroll {
            passphrase: enrolment.passphrase.clone(),
            role: enrolment.role,
            name: enrolment.name.clone(),
            node: None,
            csr_pem,
            address: enrolment.address.clone(),
            version: enrolment.version.clone(),
        };
        let call = post("/v1/enroll", Repeat::Harmless);
        let enrolled: Enrolled = http.call(call, Some(&request)).await?;
        let member = Member {
            id: enrolled.node,
            role: node_role(enrolment.role),
            name: enrolment.name.clone(),
            server_url: enrolment.server_url.clone(),
        };
        let certificate =
            Certificate { pem: enrolled.certificate_pem, authority_pem: enrolled.ca_pem };
        let credentials = Credentials::create(dir, &member, &key_pem, &certificate)
            .map_err(|error| from_pki(&error))?;
        // The answer came over a connection to the pinned authority; that it is the same one is
        // checked anyway, because from now on it is trusted instead of the fingerprint.
        if credentials.fingerprint() != enrolment.fingerprint {
            let cause = "the server handed out another authority than the pinned one";
            return Err(ApiError::new(&codes::FINGERPRINT_MISMATCH, cause));
        }
        Self::with(credentials, &enrolment.server_url)
    }

    /// The credentials, for the TLS configurations of the data plane.
    #[must_use]
    pub const fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Tells the server how things are.
    ///
    /// # Errors
    /// `server-unreachable` while the server is away.
    pub async fn report(&self, report: &Report) -> Result<(), ApiError> {
        self.http.call(post("/v1/node/report", Repeat::Harmless), Some(report)).await
    }

    /// Orders that are not yet answered, oldest first. Waits up to `wait` until there is one that
    /// is not `known`.
    ///
    /// # Errors
    /// `server-unreachable` while the server is away.
    pub async fn orders(&self, wait: Duration, known: &[OrderId]) -> Result<Orders, ApiError> {
        let known: Vec<_> = known.iter().map(ToString::to_string).collect();
        let path =
            format!("/v1/node/orders?wait_ms={}&known={}", wait.as_millis(), known.join(","));
        let call = Call { method: Method::GET, path: &path, repeat: Repeat::Harmless, wait };
        self.http.call(call, None::<&()>).await
    }

    /// Answers an order.
    ///
    /// # Errors
    /// `server-unreachable` while the server is away.
    pub async fn result(&self, id: OrderId, result: &OrderResult) -> Result<(), ApiError> {
        let path = format!("/v1/node/orders/{id}/result");
        self.http.call(post(&path, Repeat::Harmless), Some(result)).await
    }

    /// Renews the certificate when two thirds of its life are over; running listeners take the new
    /// one at once.
    ///
    /// # Errors
    /// `server-unreachable` while the server is away; the former certificate stays in use.
    pub async fn renew_if_due(&self) -> Result<(), ApiError> {
        if !self.credentials.renewal_due(SystemTime::now()) {
            return Ok(());
        }
        self.renew(self.credentials.names()).await
    }

    /// Sees to it that the certificate carries these names, for programs that compare what they
    /// dialed with it; running listeners show the new one at once.
    ///
    /// # Errors
    /// As [`NodeClient::renew_if_due`]; `bad-request` for names that are none.
    pub async fn ensure_names(&self, names: &[String]) -> Result<(), ApiError> {
        let there = self.credentials.names();
        if names.iter().all(|name| there.contains(name)) {
            return Ok(());
        }
        self.renew(names.to_vec()).await
    }

    async fn renew(&self, names: Vec<String>) -> Result<(), ApiError> {
        let local = |error: PkiError| from_pki(&error);
        let csr_pem = self.credentials.renewal_request().map_err(local)?;
        let call = post("/v1/node/renew", Repeat::Harmless);
        let enrolled: Enrolled = self.http.call(call, Some(&Renew { csr_pem, names })).await?;
        self.credentials.renew(&enrolled.certificate_pem).map_err(local)
    }
}

pub(crate) const fn post(path: &str, repeat: Repeat) -> Call<'_> {
    Call { method: Method::POST, path, repeat, wait: Duration::ZERO }
}
