//! Enrolment: the box shows its key, somebody claims it with the code printed on it, and the platform hands out
//! credentials for this site alone.
//!
//! ```text
//!   not needed (the site file has site and token)
//!   waiting --claimed by the code--> enrolled --two thirds of the life, or refused--> renewed
//!      ^                                |
//!      '--------- revoked <-------------'   kept credentials are forgotten, the flows stop, a condition tells it
//! ```
//! Every question is signed with the box's key over a nonce of the platform, used once, and the box's time. Of the claim
//! code only a slow hash leaves the box ([`protocol::claim_proof`]); no page and no log shows the code, it is printed on the
//! box. Credentials are durable before they are used.

mod keep;
mod protocol;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ureq::http::Method;

use super::contract::FlowId;
use super::credentials::Credentials;
use super::credentials::Granted;
use super::egress::{Answer, Cause, Client, EgressError, Request, bad_answer};
use super::time::{PlatformTime, Quality};
use super::worker::{Life, Next, StepError, Work};
use crate::clock::Clock;
use crate::config::HttpsUrl;
use crate::identity::{BoxIdentity, Secret};
use crate::shutdown::Shutdown;
use crate::telemetry::{Code, EnrolmentState, EnrolmentStatus, Telemetry, chain};
use crate::units::ByteSize;
use crate::version;
use keep::Keeper;
use protocol::{HandedOut, Introduction, Nonce, Told};

/// How long the platform may hold the question while nobody claims the box.
const WAIT: Duration = Duration::from_secs(25);
/// From one question to the next, when the platform did not hold it.
const PAUSE: Duration = Duration::from_secs(5);
/// From one question to the next, after a revocation.
const REVOKED_PAUSE: Duration = Duration::from_secs(30);
/// From one exchange of credentials to the next: such as are refused or due again at once must not become a loop.
const EXCHANGE_PAUSE: Duration = Duration::from_secs(60);
/// The state is looked at this often while there is nothing to do.
const LOOK_PERIOD: Duration = Duration::from_millis(250);
/// With nothing to do, the worker is silent this long at most.
const LONGEST_REST: Duration = Duration::from_secs(3600);
/// An answer at most.
const MAX_ANSWER: ByteSize = ByteSize::kib(64);

/// What enrolment works with.
pub(super) struct EnrolParts {
    pub(super) client: Client,
    pub(super) api_url: HttpsUrl,
    pub(super) identity: Arc<BoxIdentity>,
    pub(super) claim_code: Secret,
    pub(super) credentials: Credentials,
    pub(super) time: PlatformTime,
    pub(super) telemetry: Telemetry,
}

/// What the platform handed out, as it is kept in `data_dir`; `None` when there is nothing, or it can't be read.
#[must_use]
pub fn kept_credentials(data_dir: &Path) -> Option<Granted> {
    let handed_out = Keeper::new(data_dir).read().ok()??;
    Some(handed_out.granted())
}

/// The worker.
pub(super) struct Enrol {
    parts: EnrolParts,
    keeper: Keeper,
    handed_out: Option<HandedOut>,
    /// For the next question.
    nonce: Option<String>,
    claim: Option<String>,
    /// Credentials were last exchanged for others at this monotonic time.
    exchanged_at: Option<Duration>,
}

impl Enrol {
    /// Takes what was kept at once: a box that starts offline serves on with what it was given.
    pub(super) fn new(parts: EnrolParts, data_dir: &Path) -> Self {
        let mut enrol = Self {
            keeper: Keeper::new(data_dir),
            handed_out: None,
            nonce: None,
            claim: None,
            exchanged_at: None,
            parts,
        };
        if !enrol.is_needed() {
            enrol.tell(EnrolmentState::BySettings);
            return enrol;
        }
        match enrol.keeper.read() {
            Ok(Some(handed_out)) => enrol.use_them(handed_out),
            Ok(None) => {}
            // The platform knows this box: it hands out others.
            Err(error) => {
                tracing::error!(
                    event = "enrol.kept_credentials_refused",
                    error = chain(&error)
                );
            }
        }
        enrol
    }

    fn is_needed(&self) -> bool {
        self.parts.credentials.is_renewable()
    }

    /// Whether there is something to ask now.
    fn is_due(&self) -> bool {
        if !self.is_needed() {
            return false;
        }
        let Some(handed_out) = &self.handed_out else {
            return true;
        };
        let time = &self.parts.time;
        let now = time.monotonic();
        if self
            .exchanged_at
            .is_some_and(|at| now < at + EXCHANGE_PAUSE)
        {
            return false;
        }
        if self.parts.credentials.is_refused() {
            return true;
        }
        // A time that nobody vouches for is no reason to hurry.
        time.quality() >= Quality::Weak && time.now_s() >= handed_out.renew_at_s()
    }

    fn ask(&mut self) -> Result<Told, EgressError> {
        let had_nonce = self.nonce.is_some();
        let answer = self.ask_once()?;
        if answer.status() == 401 && had_nonce {
            // A nonce kept from the last answer may be too old; a new one tells.
            let _ = answer.into_error(Cause::Unauthorized);
            return read(self.ask_once()?);
        }
        read(answer)
    }

    fn ask_once(&mut self) -> Result<Answer, EgressError> {
        let nonce = match self.nonce.take() {
            Some(nonce) => nonce,
            None => self.fetch_nonce()?,
        };
        let identity = Arc::clone(&self.parts.identity);
        let public_key = identity.public_key();
        let code = &self.parts.claim_code;
        let claim = self
            .claim
            .get_or_insert_with(|| protocol::claim_proof(code, &public_key));
        let body = serde_json::to_vec(&Introduction {
            box_id: identity.id(),
            public_key: STANDARD.encode(public_key),
            version: version::running(),
            claim,
            renew: self.handed_out.is_some(),
        })
        .expect("text is JSON");
        let at_s = self.parts.time.now_s();
        let signature = protocol::signature(&identity, &nonce, at_s, &body);
        let hold = if self.handed_out.is_some() {
            Duration::ZERO
        } else {
            WAIT
        };
        self.send(&Request {
            method: Method::POST,
            url: &format!("{}/v1/enrol?wait_s={}", self.parts.api_url, hold.as_secs()),
            headers: &[
                ("content-type", "application/json"),
                ("comptoir-nonce", &nonce),
                ("comptoir-at", &at_s.to_string()),
                ("comptoir-signature", &signature),
            ],
            body: Some(&body),
            hold,
        })
    }

    fn fetch_nonce(&self) -> Result<String, EgressError> {
        let answer = self.send(&Request {
            method: Method::GET,
            url: &format!("{}/v1/enrol/nonce", self.parts.api_url),
            headers: &[],
            body: None,
            hold: Duration::ZERO,
        })?;
        let bytes = json_of(answer.success()?)?;
        let Nonce { nonce } =
            serde_json::from_slice(&bytes).map_err(|_| bad_answer(FlowId::Api, "no nonce"))?;
        // It goes into a header.
        if nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad_answer(FlowId::Api, "a nonce that is none"));
        }
        Ok(nonce)
    }

    fn send(&self, request: &Request<'_>) -> Result<Answer, EgressError> {
        let time = &self.parts.time;
        let (rounds, asked) = (time.rounds(), time.asked());
        let answer = self.parts.client.send(request)?;
        if time.observe(FlowId::Api, &answer, asked) && answer.status() == 401 {
            // The platform does not take our time; the next question is asked by a better one.
            time.wait_for_round(rounds, PAUSE);
        }
        Ok(answer)
    }

    fn take(&mut self, told: Told) -> Result<Next, StepError> {
        match told {
            Told::Waiting { nonce } => {
                self.nonce = Some(nonce);
                if self.handed_out.is_some() {
                    // A platform that forgot the box: as good as a revocation.
                    self.give_up()?;
                }
                self.tell(EnrolmentState::WaitingForClaim);
                Ok(Next::Rest(PAUSE))
            }
            Told::Claimed { nonce, credentials } => {
                self.nonce = Some(nonce);
                credentials
                    .check_new(self.parts.time.now_s())
                    .map_err(|error| bad_answer(FlowId::Api, error.to_string()))?;
                self.keeper.keep(&credentials).map_err(keep_failed)?;
                self.use_them(*credentials);
                Ok(Next::Again)
            }
            Told::Revoked { nonce } => {
                self.nonce = Some(nonce);
                self.give_up()?;
                self.tell(EnrolmentState::Revoked);
                let now_ms = self.parts.time.now_ms();
                self.parts
                    .telemetry
                    .conditions
                    .raise(Code::Revoked, "", now_ms);
                Ok(Next::Rest(REVOKED_PAUSE))
            }
        }
    }

    fn use_them(&mut self, handed_out: HandedOut) {
        if self.handed_out.is_some() {
            self.exchanged_at = Some(self.parts.time.monotonic());
        }
        self.parts.credentials.grant(Some(handed_out.granted()));
        self.parts.telemetry.conditions.clear(Code::Revoked);
        self.handed_out = Some(handed_out);
        self.tell(EnrolmentState::Enrolled);
    }

    fn tell(&self, state: EnrolmentState) {
        let handed_out = self.handed_out.as_ref();
        self.parts
            .telemetry
            .standing
            .tell_enrolment(EnrolmentStatus {
                state,
                site_id: handed_out.map(|handed_out| handed_out.site_id.clone()),
                since_ms: handed_out.map(|handed_out| handed_out.claimed_at_s.saturating_mul(1000)),
                valid_until_ms: handed_out
                    .map(|handed_out| handed_out.first_expiry_s().saturating_mul(1000)),
            });
    }

    /// Ends the flows first, then forgets.
    fn give_up(&mut self) -> Result<(), StepError> {
        self.parts.credentials.grant(None);
        self.handed_out = None;
        self.keeper.forget()?;
        Ok(())
    }
}

fn read(answer: Answer) -> Result<Told, EgressError> {
    let bytes = json_of(answer.success()?)?;
    serde_json::from_slice(&bytes)
        .map_err(|_| bad_answer(FlowId::Api, "an answer to the enrolment that is none"))
}

fn json_of(answer: Answer) -> Result<Vec<u8>, EgressError> {
    if !answer.is_of_type("application/json") {
        return Err(bad_answer(FlowId::Api, "not JSON"));
    }
    answer.bytes(MAX_ANSWER)
}

fn keep_failed(error: crate::durable::ReplaceFileError) -> StepError {
    StepError::Disk(std::io::Error::other(error))
}

impl Work for Enrol {
    fn step(&mut self, _: &Life) -> Result<Next, StepError> {
        if !self.is_due() {
            return Ok(Next::Rest(LONGEST_REST));
        }
        let asked_at = self.parts.time.monotonic();
        let told = self.ask()?;
        let was_held = self.parts.time.monotonic().saturating_sub(asked_at) >= PAUSE;
        match self.take(told)? {
            // A platform that held the question is asked again at once.
            Next::Rest(_) if was_held => Ok(Next::Again),
            next => Ok(next),
        }
    }

    /// Until something is due: by the time, by a refusal, by a change of either.
    fn rest(&mut self, wait: Duration, shutdown: &Shutdown) -> bool {
        let began = self.parts.time.monotonic();
        let rested = || self.parts.time.monotonic().saturating_sub(began);
        while rested() < wait && !shutdown.wait(LOOK_PERIOD) {
            if self.handed_out.is_some() && self.is_due() {
                break;
            }
        }
        shutdown.is_triggered()
    }
}
