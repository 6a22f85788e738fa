//! Daemons, application server and phones of one test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tandem_load::{BankConfig, Phone, PhoneBank, PhoneHandle, PhoneReport, Step};
use tandem_rig::process::wait_for;
use tandem_rig::rig::{ACCOUNT, TOKEN};
use tandem_rig::{
    AppServer, Control, ControlPlan, Edge, EdgePlan, NumberPlan, Page, Recorded, Rig, RoutePlan,
    http, ports,
};
use tandem_wan::{LinkConfig, Mapping, PathConfig, Relay};

use crate::{ALICE, ALICE_HZ, BOB_HZ, NUMBER, PROMPTS_HZ, audio};

/// Name of the region's edge.
pub const EU: &str = "edge-eu-1";
/// Name of the core region's media node.
pub const CORE: &str = "media-core-1";
/// Longest time that anything in a test may take.
pub const LIMIT: Duration = Duration::from_secs(12);

/// Where the repository is.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The program under test: `TANDEM`, or the debug build.
pub fn program() -> PathBuf {
    std::env::var_os("TANDEM").map_or_else(|| root().join("target/debug/tandem"), PathBuf::from)
}

/// What a world is to be like.
pub struct Setup {
    /// The application.
    pub app: AppServer,
    /// Control.
    pub control: ControlPlan,
    /// Another control node that the region's edge knows, behind the first.
    pub second: Option<ControlPlan>,
    /// The region's edge.
    pub eu: EdgePlan,
    /// The core region's media node, if any.
    pub core: Option<EdgePlan>,
    /// One-way delay between the regions.
    pub wan_delay_ms: f64,
    /// Where [`crate::BOB`] leads.
    pub bob: SocketAddr,
    /// Where [`crate::CAROL`] leads.
    pub carol: SocketAddr,
}

impl Setup {
    /// Control, one edge in `eu`, [`NUMBER`] with `/start`, `/fallback` and `/status`.
    ///
    /// # Errors
    /// If the application server cannot start.
    pub fn new() -> anyhow::Result<Self> {
        let app = AppServer::start()?;
        for hz in PROMPTS_HZ {
            app.page(&format!("/{hz}.wav"), Page::of("audio/wav", audio::tone_wav(hz, 800)));
        }
        app.page("/short.wav", Page::of("audio/wav", audio::tone_wav(PROMPTS_HZ[0], 100)));
        app.page("/status", Page::status(204));
        let (bob, carol) = (ports::udp()?, ports::udp()?);
        let route = |prefix: &str, node: &str, callee: SocketAddr| RoutePlan {
            prefix: prefix.to_owned(),
            node: node.to_owned(),
            uri: format!("sip:{{number}}@{callee}"),
            without_instructions: false,
        };
        let control = ControlPlan {
            routes: vec![route("+155501", EU, bob), route("+155601", CORE, carol)],
            default_edge: Some(EU.to_owned()),
            ..ControlPlan::default()
        };
        let setup = Self {
            app,
            control,
            second: None,
            eu: EdgePlan::new(EU, "eu"),
            core: None,
            wan_delay_ms: 0.0,
            bob,
            carol,
        };
        Ok(setup.number(NUMBER, "/start"))
    }

    /// A world whose [`NUMBER`] runs these verbs.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(verbs: &str) -> anyhow::Result<Self> {
        Ok(Self::new()?.page("/start", Page::verbs(verbs)))
    }

    /// Sets what a path of the application answers.
    #[must_use]
    pub fn page(self, path: &str, page: Page) -> Self {
        self.app.page(path, page);
        self
    }

    /// Adds a number that runs the document at `path`, a path of the application or a whole URL.
    #[must_use]
    pub fn number(mut self, number: &str, path: &str) -> Self {
        let url = if path.starts_with('/') { self.app.url(path) } else { path.to_owned() };
        self.control.numbers.push(NumberPlan {
            number: number.to_owned(),
            voice_url: url,
            fallback_url: Some(self.app.url("/fallback")),
            status_callback: Some(self.app.url("/status")),
        });
        self
    }

    /// Adds the core region with its media node, so far away.
    #[must_use]
    pub fn two_regions(mut self, one_way_ms: f64) -> Self {
        self.core = Some(EdgePlan { core: true, ..EdgePlan::new(CORE, "core") });
        self.wan_delay_ms = one_way_ms;
        self
    }

    /// The same for changes of the region's edge.
    #[must_use]
    pub fn edge(mut self, change: impl FnOnce(&mut EdgePlan)) -> Self {
        change(&mut self.eu);
        self
    }

    /// Starts everything.
    ///
    /// # Errors
    /// With the end of the log of what did not start.
    pub fn begin(self) -> anyhow::Result<World> {
        let Self { app, control, second, mut eu, core, wan_delay_ms, bob, carol } = self;
        let rig = Rig::temporary(&program())?;
        let control = rig.control(&control)?;
        eu.controls = vec![(control.node.clone(), control.link)];
        let (mut wan, mut core_edge) = (None, None);
        if let Some(mut plan) = core {
            let (relay, link, trunk, advertise) = between_regions(&control, wan_delay_ms)?;
            plan.controls = vec![(control.node.clone(), control.link)];
            plan.trunk_advertise = Some(advertise);
            plan.media_timeout_s = eu.media_timeout_s;
            core_edge = Some(rig.edge_at(&plan, ports::udp()?, trunk)?);
            eu.controls = vec![(control.node.clone(), link)];
            wan = Some(relay);
        }
        let second = second.map(|plan| rig.control(&plan)).transpose()?;
        eu.controls.extend(second.iter().map(|second| (second.node.clone(), second.link)));
        let edge = rig.edge(&eu)?;
        let bank = PhoneBank::start(BankConfig::default())?;
        Ok(World {
            bank,
            eu: edge,
            eu_plan: eu,
            core: core_edge,
            control,
            second,
            wan,
            app,
            rig,
            bob,
            carol,
        })
    }
}

/// Delay on the way to control's link and to the core region's trunk: the relay, the link through
/// it, the trunk, the trunk through it.
fn between_regions(
    control: &Control,
    delay_ms: f64,
) -> anyhow::Result<(Relay, SocketAddr, SocketAddr, SocketAddr)> {
    let trunk = ports::udp()?;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mappings =
        [Mapping { listen: any, target: control.link }, Mapping { listen: any, target: trunk }];
    let delay = LinkConfig { delay_ms, ..LinkConfig::default() };
    let relay = Relay::start(mappings.to_vec(), PathConfig::symmetric(delay), 1)
        .map_err(|error| anyhow::anyhow!("WAN emulator: {error}"))?;
    let [link, advertise] = relay.listen_addrs().try_into().ok().context("WAN emulator")?;
    Ok((relay, link, trunk, advertise))
}

/// Everything that runs. Ends with its owner.
pub struct World {
    /// Phones.
    pub bank: PhoneBank,
    /// The region's edge.
    pub eu: Edge,
    /// What it was started with.
    pub eu_plan: EdgePlan,
    /// The core region's media node.
    pub core: Option<Edge>,
    /// Control.
    pub control: Control,
    /// The other control node.
    pub second: Option<Control>,
    /// Between the regions.
    pub wan: Option<Relay>,
    /// The application.
    pub app: AppServer,
    /// Folder and program.
    pub rig: Rig,
    /// Where [`crate::BOB`] leads.
    pub bob: SocketAddr,
    /// Where [`crate::CAROL`] leads.
    pub carol: SocketAddr,
}

impl World {
    /// The SIP URI of a number at the region's edge.
    pub fn uri(&self, number: &str) -> String {
        format!("sip:{number}@{}", self.eu.sip)
    }

    /// A phone that will call a number.
    pub fn caller(&self, number: &str, steps: impl IntoIterator<Item = Step>) -> Phone {
        Phone::caller("alice", &self.uri(number)).user(ALICE).tone(ALICE_HZ).script(steps)
    }

    /// A phone that answers when [`crate::BOB`] is called.
    pub fn callee(&self, steps: impl IntoIterator<Item = Step>) -> Phone {
        Phone::callee("bob").listen(self.bob).tone(BOB_HZ).script(steps)
    }

    /// Calls [`NUMBER`].
    ///
    /// # Errors
    /// If the phone cannot be plugged in.
    pub fn call(&self, steps: impl IntoIterator<Item = Step>) -> anyhow::Result<PhoneHandle> {
        Ok(self.bank.add(self.caller(NUMBER, steps))?)
    }

    /// Calls [`NUMBER`] and waits for the end.
    ///
    /// # Errors
    /// If the call does not end in time or the script fails.
    pub fn call_through(
        &self,
        steps: impl IntoIterator<Item = Step>,
    ) -> anyhow::Result<PhoneReport> {
        ended(&self.call(steps)?)
    }

    /// Plugs in the callee in the region.
    ///
    /// # Errors
    /// If it cannot be plugged in.
    pub fn answer(&self, steps: impl IntoIterator<Item = Step>) -> anyhow::Result<PhoneHandle> {
        Ok(self.bank.add(self.callee(steps))?)
    }

    /// GET below the account.
    ///
    /// # Errors
    /// If the status is not 2xx or the body is not JSON.
    pub fn api(&self, path: &str) -> anyhow::Result<Value> {
        let response = http::get(&self.control.account_url(path), Some((ACCOUNT, TOKEN)))?;
        anyhow::ensure!(
            response.status / 100 == 2,
            "GET {path}: {} {}",
            response.status,
            response.text()
        );
        response.json()
    }

    /// POST below the account; the status and the JSON body whatever the status is.
    ///
    /// # Errors
    /// If there is no response, or one without JSON.
    pub fn api_post(&self, path: &str, form: &[(&str, &str)]) -> anyhow::Result<(u16, Value)> {
        let response = http::post(&self.control.account_url(path), Some((ACCOUNT, TOKEN)), form)?;
        Ok((response.status, response.json()?))
    }

    /// Creates a call; its CallSid.
    ///
    /// # Errors
    /// If it is refused.
    pub fn create_call(&self, form: &[(&str, &str)]) -> anyhow::Result<String> {
        let (status, call) = self.api_post("/Calls.json", form)?;
        anyhow::ensure!(status == 201, "POST Calls: {status} {call}");
        Ok(text(&call, "sid").to_owned())
    }

    /// The record of a call.
    ///
    /// # Errors
    /// As [`Self::api`].
    pub fn record(&self, sid: &str) -> anyhow::Result<Value> {
        self.api(&format!("/Calls/{sid}.json"))
    }

    /// Waits until a call's record has this status.
    ///
    /// # Errors
    /// After a while, with the record as it is then.
    pub fn wait_status(&self, sid: &str, status: &str) -> anyhow::Result<Value> {
        let mut last = Value::Null;
        let waited = wait_for(&format!("{sid} to be {status}"), LIMIT, || {
            last = self.record(sid)?;
            Ok(text(&last, "status") == status)
        });
        waited.with_context(|| last.to_string())?;
        Ok(last)
    }

    /// The CallSid of an inbound call of a phone, which the application was told.
    ///
    /// # Errors
    /// If the application was not told.
    pub fn sid_of(&self, phone: &PhoneHandle) -> anyhow::Result<String> {
        let mut found = None;
        wait_for("a webhook of the call", LIMIT, || {
            let call_id = phone.report()?.call_id.unwrap_or_default();
            let requests = self.app.requests();
            let of_call = requests.iter().find(|r| r.param("SipCallId") == Some(call_id.as_str()));
            found = of_call.and_then(|request| request.param("CallSid")).map(str::to_owned);
            Ok(found.is_some())
        })?;
        found.context("CallSid")
    }

    /// The rows of a session's timeline.
    ///
    /// # Errors
    /// If control does not answer as it should.
    pub fn timeline(&self, session: &str) -> anyhow::Result<Vec<Value>> {
        let url = self.control.url(&format!("/tandem/v1/calls/{session}/timeline.json"));
        let page = http::get(&url, Some((ACCOUNT, TOKEN)))?.json()?;
        let rows = page.get("timeline").or(Some(&page)).and_then(Value::as_array);
        Ok(rows.with_context(|| page.to_string())?.clone())
    }

    /// All labels of the media graph that were in force, `eu`'s phases in order: verb, label.
    ///
    /// # Errors
    /// As [`Self::timeline`].
    pub fn modes(&self, session: &str) -> anyhow::Result<Vec<(String, Vec<String>)>> {
        let mut modes: Vec<(u64, String, Vec<String>)> = Vec::new();
        for row in self.timeline(session)? {
            let event = row.get("event").unwrap_or(&row);
            let phase = event.get("phase").and_then(Value::as_u64).unwrap_or(0);
            match text(event, "kind") {
                "phase" => modes.push((phase, text(event, "verb").to_owned(), Vec::new())),
                "graph" => {
                    let labels = event.get("labels").and_then(Value::as_array);
                    let labels = labels.into_iter().flatten().map(|l| text(l, "label").to_owned());
                    if let Some(mode) = modes.iter_mut().find(|mode| mode.0 == phase) {
                        mode.2.extend(labels);
                    }
                }
                _ => {}
            }
        }
        Ok(modes.into_iter().map(|(_, verb, labels)| (verb, labels)).collect())
    }

    /// Waits until a metric of the region's edge has a value; it shows a copy that is made a few
    /// times a second.
    ///
    /// # Errors
    /// After a while, with the value it has.
    pub fn wait_metric(&self, name: &str, value: f64) -> anyhow::Result<()> {
        let name = format!("tandem_edge_{name}");
        let mut last = f64::NAN;
        let waited = wait_for(&format!("{name} = {value}"), Duration::from_secs(4), || {
            last = self.eu.metric(&name)?;
            Ok(last == value)
        });
        waited.with_context(|| format!("it is {last}"))
    }

    /// The alerts of the account.
    ///
    /// # Errors
    /// As [`Self::api`].
    pub fn alerts(&self) -> anyhow::Result<Vec<Value>> {
        let page = self.api("/Notifications.json")?;
        let alerts = page.get("notifications").and_then(Value::as_array);
        Ok(alerts.with_context(|| page.to_string())?.clone())
    }

    /// Status callbacks about one leg, in the order of their arrival.
    pub fn callbacks(&self, sid: &str) -> Vec<Recorded> {
        let all = self.app.requests_for("/status");
        all.into_iter().filter(|request| request.param("CallSid") == Some(sid)).collect()
    }

    /// Waits for the callback that ends a leg's row.
    ///
    /// # Errors
    /// After a while.
    pub fn wait_terminal(&self, sid: &str) -> anyhow::Result<Vec<Recorded>> {
        wait_for(&format!("terminal callback of {sid}"), LIMIT, || {
            Ok(self.callbacks(sid).iter().any(is_terminal))
        })?;
        Ok(self.callbacks(sid))
    }

    /// Ends everything in good order.
    ///
    /// # Errors
    /// If a leg is left, a process has to be killed, or one of them panicked on the way.
    pub fn finish(mut self) -> anyhow::Result<()> {
        // The first look may see an old copy.
        crate::pause_ms(300);
        self.eu.wait_idle(LIMIT)?;
        self.eu.stop()?;
        if let Some(core) = &mut self.core {
            core.wait_idle(LIMIT)?;
            core.stop()?;
        }
        self.control.stop()?;
        if let Some(second) = &mut self.second {
            second.stop()?;
        }
        for (node, log) in self.logs() {
            anyhow::ensure!(!log.contains("panicked at"), "{node}:\n{log}");
        }
        Ok(())
    }

    fn logs(&self) -> Vec<(&str, String)> {
        let mut logs = vec![
            (self.control.node.as_str(), self.control.process.log()),
            (self.eu.node.as_str(), self.eu.process.log()),
        ];
        logs.extend(self.second.iter().map(|c| (c.node.as_str(), c.process.log())));
        logs.extend(self.core.iter().map(|core| (core.node.as_str(), core.process.log())));
        logs
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A test that returns an error does not panic: show the logs whenever they say more than
        // that all went well, libtest prints them only for a failed test.
        for (node, log) in self.logs() {
            let tail: Vec<&str> = log.lines().rev().take(25).collect();
            println!("--- {node}\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        for request in self.app.requests().iter().take(40) {
            let told = ["CallStatus", "Digits", "ErrorCode", "ErrorUrl", "SequenceNumber"];
            let told = told.iter().filter_map(|name| Some((*name, request.param(name)?)));
            println!("{} {} {:?}", request.method, request.path, told.collect::<Vec<_>>());
        }
    }
}

/// Whether a callback tells the end of a leg.
pub fn is_terminal(request: &Recorded) -> bool {
    let status = request.param("CallStatus").unwrap_or_default();
    ["completed", "busy", "failed", "no-answer", "canceled"].contains(&status)
}

/// A text of a JSON object; empty if it is not there.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Waits for the end of a phone's call whose script must have gone through.
///
/// # Errors
/// With the timeline of the phone.
pub fn ended(phone: &PhoneHandle) -> anyhow::Result<PhoneReport> {
    let report = phone.wait_ended(LIMIT)?;
    let lines = || {
        let line = |e: &tandem_load::TimelineEvent| {
            format!("{:>8.1} ms  {}", e.at_ns.saturating_sub(report.began_ns) as f64 / 1e6, e.kind)
        };
        report.events.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    anyhow::ensure!(report.ended(), "{}: the call goes on\n{}", phone.name(), lines());
    if let Some(failure) = &report.failure {
        anyhow::bail!("{}: {failure}\nheard {:?}\n{}", phone.name(), report.heard, lines());
    }
    Ok(report)
}

/// Hears the tones in this order, each at most so late, then waits for the other side's BYE.
pub fn hears(tones_hz: &[f64]) -> Vec<Step> {
    let mut steps = vec![Step::WaitAnswer(10_000)];
    steps.extend(tones_hz.iter().map(|hz| Step::wait_tone(*hz)));
    steps
}
