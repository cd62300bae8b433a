mod keeping;

use crate::Backoff;
use crate::error::from_pki;
use crate::http::{Call, Http, Repeat};
use crate::node::post;
use crate::url::ServerUrl;
use hyper::Method;
use landfall_api_types::request::{
    ChangePoint, Commit, DiscardDivergence, Failback, Failover, Mark, MarkGroup, NewDiskClient,
    Protect, Reprotect, ReprotectEstimate, SetBandwidth, TestCleanUp, TestFailover,
};
use landfall_api_types::resource::{
    Bandwidth, DiskClient, Divergence, GroupPoint, Job, JobState, Machine, Points, Server,
};
use landfall_api_types::{ApiError, codes};
use landfall_pki::{Credentials, tls};
use landfall_types::JobId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long one call waits for a job to change.
pub const JOB_WAIT: Duration = Duration::from_secs(10);
/// How long a job is waited for while the server does not answer: it goes on by itself when it is
/// back.
const AWAY_MAX: Duration = Duration::from_secs(60);

/// How long the members of a group may take: one round of questions after the other.
const GROUP_WAIT: Duration = Duration::from_secs(90);

/// An operator's client of every endpoint.
pub struct Client {
    http: Http,
}

/// An empty body.
#[derive(Serialize)]
struct Nothing {}

impl Client {
    /// Opens the operator's credentials.
    ///
    /// # Errors
    /// `not-authorized` when they are missing or damaged.
    pub fn open(credentials: &Path) -> Result<Self, ApiError> {
        let credentials = Credentials::open(credentials).map_err(|error| from_pki(&error))?;
        let tls = tls::rest_client(&credentials).map_err(|error| from_pki(&error))?;
        let url = ServerUrl::parse(&credentials.member().server_url)?;
        Ok(Self { http: Http::new(url, tls) })
    }

    /// `GET /v1/health`: answers while the server works.
    ///
    /// # Errors
    /// As every method here: what the server refused, or `server-unreachable`.
    pub async fn health(&self) -> Result<(), ApiError> {
        self.get("/v1/health").await
    }

    /// `GET /v1/servers`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn servers(&self) -> Result<Vec<Server>, ApiError> {
        self.get("/v1/servers").await
    }

    /// `POST /v1/disk-clients`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn disk_client(&self, ask: &NewDiskClient) -> Result<DiskClient, ApiError> {
        self.send("/v1/disk-clients", ask).await
    }

    /// `POST /v1/servers/{name}/bandwidth`.
    ///
    /// # Errors
    /// `bad-request` where the plan is none; see [`Client::health`].
    pub async fn set_bandwidth(
        &self,
        server: &str,
        ask: &SetBandwidth,
    ) -> Result<Bandwidth, ApiError> {
        self.send(&server_path(server, "/bandwidth"), ask).await
    }

    /// `GET /v1/machines`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn machines(&self) -> Result<Vec<Machine>, ApiError> {
        self.get("/v1/machines").await
    }

    /// `GET /v1/machines/{name}`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn machine(&self, name: &str) -> Result<Machine, ApiError> {
        self.get(&machine_path(name, "")).await
    }

    /// `GET /v1/machines/{name}/points`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn points(&self, name: &str) -> Result<Points, ApiError> {
        self.get(&machine_path(name, "/points")).await
    }

    /// `GET /v1/machines/{name}/divergence`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn divergence(&self, name: &str) -> Result<Vec<Divergence>, ApiError> {
        self.get(&machine_path(name, "/divergence")).await
    }

    /// `GET /v1/jobs`, newest first.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn jobs(&self) -> Result<Vec<Job>, ApiError> {
        self.get("/v1/jobs").await
    }

    /// `GET /v1/jobs?before=ID&limit=N`: jobs that are older than `before`, newest first, 1 to
    /// 1 000.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn jobs_before(
        &self,
        before: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<Job>, ApiError> {
        let before = before.map_or_else(String::new, |id| format!("&before={id}"));
        self.get(&format!("/v1/jobs?limit={limit}{before}")).await
    }

    /// `GET /v1/jobs/{id}`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn job(&self, id: JobId) -> Result<Job, ApiError> {
        self.get(&format!("/v1/jobs/{id}")).await
    }

    /// `POST /v1/jobs/{id}/retry`: goes on with a job that waits for an operator.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn retry_job(&self, id: JobId) -> Result<Job, ApiError> {
        self.send(&format!("/v1/jobs/{id}/retry"), &Nothing {}).await
    }

    /// `POST /v1/jobs/{id}/cancel`: gives a job up while nothing is promoted; it rolls back.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn cancel_job(&self, id: JobId) -> Result<Job, ApiError> {
        self.send(&format!("/v1/jobs/{id}/cancel"), &Nothing {}).await
    }

    /// `POST /v1/machines`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn protect(&self, request: &Protect) -> Result<Job, ApiError> {
        self.send("/v1/machines", request).await
    }

    /// `POST …/test-failover`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn test_failover(&self, name: &str, ask: &TestFailover) -> Result<Job, ApiError> {
        self.send(&machine_path(name, "/test-failover"), ask).await
    }

    /// `POST …/test-failover/clean-up`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn test_clean_up(&self, name: &str, ask: &TestCleanUp) -> Result<Job, ApiError> {
        self.send(&machine_path(name, "/test-failover/clean-up"), ask).await
    }

    /// `POST …/failover`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn failover(&self, name: &str, ask: &Failover) -> Result<Job, ApiError> {
        self.send(&machine_path(name, "/failover"), ask).await
    }

    /// `POST …/change-point`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn change_point(&self, name: &str, ask: &ChangePoint) -> Result<Job, ApiError> {
        self.send(&machine_path(name, "/change-point"), ask).await
    }

    /// `POST …/commit`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn commit(&self, name: &str) -> Result<Job, ApiError> {
        self.send(&machine_path(name, "/commit"), &Commit {}).await
    }

    /// `POST …/reprotect`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn reprotect(&self, name: &str, ask: &Reprotect) -> Result<Job, ApiError> {
        let ask = Reprotect { dry_run: false, ..ask.clone() };
        self.send(&machine_path(name, "/reprotect"), &ask).await
    }

    /// `POST …/reprotect` with `dry_run`: changes nothing.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn reprotect_estimate(
        &self,
        name: &str,
        ask: &Reprotect,
    ) -> Result<ReprotectEstimate, ApiError> {
        let ask = Reprotect { dry_run: true, ..ask.clone() };
        self.send(&machine_path(name, "/reprotect"), &ask).await
    }

    /// `POST …/failback`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn failback(&self, name: &str) -> Result<Job, ApiError> {
        self.send(&machine_path(name, "/failback"), &Failback {}).await
    }

    /// `POST …/disable`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn disable(&self, name: &str) -> Result<Job, ApiError> {
        self.send(&machine_path(name, "/disable"), &Nothing {}).await
    }

    /// `POST …/cancel`: gives up a reprotect that has not ended.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn cancel(&self, name: &str) -> Result<Job, ApiError> {
        self.send(&machine_path(name, "/cancel"), &Nothing {}).await
    }

    /// `POST …/pause`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn pause(&self, name: &str) -> Result<Job, ApiError> {
        self.send(&machine_path(name, "/pause"), &Nothing {}).await
    }

    /// `POST …/resume`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn resume(&self, name: &str) -> Result<Job, ApiError> {
        self.send(&machine_path(name, "/resume"), &Nothing {}).await
    }

    /// `POST …/mark`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn mark(&self, name: &str, ask: &Mark) -> Result<Job, ApiError> {
        self.send(&machine_path(name, "/mark"), ask).await
    }

    /// `POST /v1/group-points`: answered when there is the point, or none.
    ///
    /// # Errors
    /// See [`Client::health`]; `point-failed` names the member that could not keep the promise.
    pub async fn mark_group(&self, ask: &MarkGroup) -> Result<GroupPoint, ApiError> {
        let call = Call { wait: GROUP_WAIT, ..post("/v1/group-points", Repeat::Never) };
        self.http.call(call, Some(ask)).await
    }

    /// `POST …/divergence/discard`.
    ///
    /// # Errors
    /// See [`Client::health`].
    pub async fn discard_divergence(
        &self,
        name: &str,
        ask: &DiscardDivergence,
    ) -> Result<Job, ApiError> {
        self.send(&machine_path(name, "/divergence/discard"), ask).await
    }

    /// Follows a job until it has ended or waits for an operator; `progress` sees every state that
    /// is learned.
    ///
    /// A server that is away is waited for: the job goes on when it is back.
    ///
    /// # Errors
    /// See [`Client::health`]; how the job ended is in the job.
    pub async fn wait_job(
        &self,
        id: JobId,
        mut progress: impl FnMut(&Job),
    ) -> Result<Job, ApiError> {
        let mut backoff = Backoff::new();
        let mut away_since: Option<Instant> = None;
        let path = format!("/v1/jobs/{id}");
        let mut wait = Duration::ZERO;
        loop {
            let asked = format!("{path}?wait_ms={}", wait.as_millis());
            let call = Call { method: Method::GET, path: &asked, repeat: Repeat::Harmless, wait };
            match self.http.call::<Job>(call, None::<&()>).await {
                Ok(job) => {
                    progress(&job);
                    if job.state != JobState::Running {
                        return Ok(job);
                    }
                    (away_since, wait) = (None, JOB_WAIT);
                    backoff.reset();
                }
                Err(error) if error.code == codes::SERVER_UNREACHABLE.name => {
                    let since = *away_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > AWAY_MAX {
                        return Err(error);
                    }
                    tokio::time::sleep(backoff.pause()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn get<R: DeserializeOwned>(&self, path: &str) -> Result<R, ApiError> {
        let call =
            Call { method: Method::GET, path, repeat: Repeat::Harmless, wait: Duration::ZERO };
        self.http.call(call, None::<&()>).await
    }

    async fn send<R: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<R, ApiError> {
        self.http.call(post(path, Repeat::Never), Some(body)).await
    }
}

/// `/v1/machines/{name}{rest}` with the name percent-encoded (RFC 3986, section 2.1).
fn machine_path(name: &str, rest: &str) -> String {
    format!("/v1/machines/{}{rest}", encoded(name))
}

/// The same for `/v1/servers/`.
fn server_path(name: &str, rest: &str) -> String {
    format!("/v1/servers/{}{rest}", encoded(name))
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_machines_can_not_leave_their_place_in_the_path() {
        assert_eq!(machine_path("db-1", "/commit"), "/v1/machines/db-1/commit");
        assert_eq!(machine_path("../a b?", ""), "/v1/machines/..%2Fa%20b%3F");
    }
}
