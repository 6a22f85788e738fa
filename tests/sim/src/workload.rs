//! Draws calls: who calls, what the instructions say, what the parties do.

use std::collections::BTreeMap;

use control_core::directory::{
    Account, Directory, Fallback, Number, StatusTarget, UrlMethod, VoiceUrls,
};
use control_core::io::{FetchFailureKind, Method};
use link_proto::table::{Route, Tables};
use link_proto::{AccountSid, PhoneNumberSid};
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::app_server::{AppServers, Customer, Page};
use crate::edge_node::edge_name;
use crate::net::{SIP_PORT, phone_ip};
use crate::phone::{Manner, Party, Script};
use crate::world::{REGIONS, Request};

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Prompts, then the end of the document.
    Play,
    /// Digits, asked for several times.
    Gather,
    /// Another party is called.
    Dial,
    /// Two parties are called at once.
    DialMany,
    /// The caller presses star.
    DialStar,
    /// The caller is recorded.
    Record,
    /// The document refuses the call.
    Reject,
    /// Nobody has that number.
    Unknown,
    /// One document leads to the next.
    Redirect,
    /// The primary server fails, the fallback answers.
    Fallback,
    /// Everything fails: a spoken error.
    Broken,
    /// The API sends a running call elsewhere.
    ApiRedirect,
    /// The API ends a running call.
    ApiHangUp,
    /// The API makes a call.
    ApiCall,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Play,
        Self::Gather,
        Self::Dial,
        Self::DialMany,
        Self::DialStar,
        Self::Record,
        Self::Reject,
        Self::Unknown,
        Self::Redirect,
        Self::Fallback,
        Self::Broken,
        Self::ApiRedirect,
        Self::ApiHangUp,
        Self::ApiCall,
    ];
}

/// One call.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its number.
    pub index: usize,
    /// Number of the customer.
    pub customer: usize,
    /// Region of the caller, or of the called party of an API call.
    pub region: usize,
    /// Region of called parties.
    pub far: usize,
    /// What it is about.
    pub kind: Kind,
    /// ms from the start of the run.
    pub start_ms: u64,
    /// The caller; of an API call the called party.
    pub caller: Script,
    /// Called parties, roles 1, 2, …
    pub called: Vec<Script>,
    /// API requests with their time in ms from the start of the call.
    pub api: Vec<(u64, Request)>,
}

impl Plan {
    /// The number that is called.
    pub fn number(&self) -> String {
        format!("+49{}{:04}", self.region, self.index)
    }

    /// User name of a called party.
    pub fn user(&self, role: usize) -> String {
        format!("+77{}{role}{:04}", self.far, self.index)
    }

    /// A URL of its customer.
    pub fn url(&self, page: &str) -> String {
        format!("http://app{}.test/{:04}/{page}", self.customer, self.index)
    }

    fn path(&self, page: &str) -> String {
        format!("/{:04}/{page}", self.index)
    }
}

/// A run's calls and everything that has to be configured for them.
pub struct Workload {
    /// Calls.
    pub plans: Vec<Plan>,
    /// For control.
    pub directory: Directory,
    /// Web servers.
    pub apps: AppServers,
}

fn maybe(rng: &mut StdRng, percent: u32, range: std::ops::Range<u64>) -> Option<u64> {
    let (hit, value) = (rng.random_range(0..100) < percent, rng.random_range(range));
    hit.then_some(value)
}

impl Plan {
    fn draw(index: usize, kind: Kind, within_ms: u64, rng: &mut StdRng) -> Self {
        let region = usize::from(rng.random_range(0..100) < 20);
        let far = if rng.random_range(0..100) < 75 { region } else { 1 - region };
        let mut plan = Self {
            index,
            customer: rng.random_range(0..2),
            region,
            far,
            kind,
            start_ms: rng.random_range(600..within_ms),
            caller: Script { give_up_ms: maybe(rng, 25, 10..15_000), ..Script::default() },
            called: Vec::new(),
            api: Vec::new(),
        };
        match kind {
            Kind::Gather => {
                plan.caller.keys = keys(rng, "12345678901234567890", 12);
            }
            Kind::Dial | Kind::DialMany | Kind::DialStar => plan.draw_called(rng),
            Kind::ApiRedirect => {
                let form = vec![("Url".to_owned(), plan.url("next"))];
                plan.api.push((rng.random_range(1_000..6_000), Request::Update(form)));
            }
            Kind::ApiHangUp => {
                let form = vec![("Status".to_owned(), "completed".to_owned())];
                plan.api.push((rng.random_range(500..6_000), Request::Update(form)));
            }
            Kind::ApiCall => plan.draw_api_call(rng),
            _ => {}
        }
        plan
    }

    fn draw_called(&mut self, rng: &mut StdRng) {
        let count = if self.kind == Kind::DialMany { 2 } else { 1 };
        for _ in 0..count {
            let manner = match rng.random_range(0..10) {
                0 => Manner::Refuse(486),
                1 => Manner::Refuse(603),
                2 => Manner::Ring,
                3 => Manner::EarlyMedia,
                _ => Manner::Answer,
            };
            let manner = if self.kind == Kind::DialStar { Manner::Answer } else { manner };
            self.called.push(Script {
                manner,
                answer_ms: rng.random_range(10..6_000),
                hang_up_ms: maybe(rng, 60, 50..12_000),
                give_up_ms: None,
                ..Script::default()
            });
        }
        if self.kind == Kind::DialStar {
            self.caller.keys = keys(rng, "1*", 3);
        }
        // Somebody has to end a conversation.
        self.caller.hang_up_ms = Some(rng.random_range(8_000..30_000));
    }

    fn draw_api_call(&mut self, rng: &mut StdRng) {
        self.far = self.region;
        self.caller.give_up_ms = None;
        let manner = match rng.random_range(0..6) {
            0 => Manner::Refuse(486),
            1 => Manner::Ring,
            _ => Manner::Answer,
        };
        let script = Script {
            manner,
            answer_ms: rng.random_range(10..5_000),
            hang_up_ms: maybe(rng, 40, 50..12_000),
            ..Script::default()
        };
        self.called.push(script);
        let form = [
            ("To", self.user(1)),
            ("From", self.number()),
            ("Url", self.url("start")),
            ("Timeout", "10".to_owned()),
            ("StatusCallback", self.url("status")),
            ("StatusCallbackEvent", "initiated ringing answered completed".to_owned()),
        ];
        let form = form.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.api.push((0, Request::Create(form)));
    }

    fn pages(&self, rng: &mut StdRng) -> BTreeMap<&'static str, Page> {
        let mut pages = BTreeMap::new();
        let mut ms = |low, high| rng.random_range(low..high);
        let play = |ms: u64| format!("<Play>http://media.test/a.wav?ms={ms}</Play>");
        let mut add = |name, verbs: String| pages.insert(name, Page::document(&verbs));
        let (bye, long) = (play(ms(300, 2_000)), play(ms(4_000, 12_000)));
        add("next", format!("{bye}<Say>The end.</Say>"));
        add("fallback", format!("<Say>One moment.</Say>{bye}"));
        // Without a draw: the seeds that found something go on as they did.
        let screened = self.index.is_multiple_of(3);
        let screen =
            if screened { format!("url=\"{}\" ", self.url("screen")) } else { String::new() };
        let targets: String = (1..=self.called.len())
            .map(|role| {
                format!(
                    "<Number {screen}statusCallback=\"{}\" statusCallbackEvent=\"initiated ringing answered \
                     completed\">{}</Number>",
                    self.url("leg"),
                    self.user(role)
                )
            })
            .collect();
        let star = if self.kind == Kind::DialStar { " hangupOnStar=\"true\"" } else { "" };
        let action = if ms(0, 2) == 0 { " action=\"next\"" } else { "" };
        let bridge = if ms(0, 3) == 0 { " answerOnBridge=\"true\"" } else { "" };
        let dial =
            format!("<Dial timeout=\"{}\"{star}{action}{bridge}>{targets}</Dial>{bye}", ms(4, 10));
        let start = match self.kind {
            Kind::Play => format!("<Say>Hello there.</Say>{bye}<Pause length=\"1\"/>{bye}"),
            Kind::ApiRedirect | Kind::ApiHangUp => format!("{long}{long}"),
            Kind::ApiCall | Kind::Unknown => bye,
            Kind::Gather => format!(
                "<Gather numDigits=\"{}\" action=\"again\" timeout=\"3\">{long}</Gather>{bye}",
                ms(1, 4)
            ),
            Kind::Dial | Kind::DialMany | Kind::DialStar => dial,
            Kind::Record => format!("<Record maxLength=\"{}\" action=\"next\"/>{bye}", ms(1, 6)),
            Kind::Reject => "<Reject reason=\"busy\"/>".to_owned(),
            Kind::Redirect => "<Say>Wait.</Say><Redirect method=\"GET\">next</Redirect>".to_owned(),
            Kind::Fallback | Kind::Broken => "<Broken>".to_owned(),
        };
        add("start", start);
        add(
            "again",
            "<Gather numDigits=\"2\" action=\"again\" timeout=\"2\"><Say>More?</Say></Gather>"
                .to_owned(),
        );
        for page in pages.values_mut() {
            page.delay_ms = ms(5, 400);
        }
        let refuses = if self.index.is_multiple_of(9) { "<Hangup/>" } else { "" };
        let ask = "<Gather numDigits=\"1\" timeout=\"1\"><Say>A call for you.</Say></Gather>";
        let screen = Page::document(&format!("{ask}<Say>Here it is.</Say>{refuses}"));
        pages.insert("screen", screen);
        let fault = ms(0, 4);
        if let (Kind::Fallback | Kind::Broken, Some(start)) = (self.kind, pages.get_mut("start")) {
            match fault {
                0 => start.status = 503,
                1 => start.failure = Some(FetchFailureKind::Refused),
                2 => start.content_type = "video/mp4",
                _ => {}
            }
        }
        pages
    }

    fn number_entry(&self, account: AccountSid) -> Number {
        let target = |page: &str| UrlMethod { url: self.url(page), method: Method::Post };
        let events = ["initiated", "ringing", "answered", "completed"].map(str::to_owned).to_vec();
        let fallback = Fallback { target: target("fallback"), classes: Vec::new() };
        let mut sid = [0u8; 16];
        sid[..8].copy_from_slice(&(self.index as u64 + 1).to_le_bytes());
        Number {
            sid: PhoneNumberSid(sid),
            account,
            application: None,
            voice: VoiceUrls {
                voice: Some(target("start")),
                fallbacks: if self.kind == Kind::Broken { Vec::new() } else { vec![fallback] },
                status: vec![StatusTarget { target: target("status"), events }],
            },
        }
    }

    /// Party of a role.
    pub fn party(&self, role: usize) -> Party {
        Party { plan: self.index, role: role as u8 }
    }
}

fn keys(rng: &mut StdRng, keys: &str, count_max: usize) -> Vec<(u64, char)> {
    let count = rng.random_range(1..=count_max);
    let mut at_ms = rng.random_range(300..4_000);
    let mut pressed = Vec::new();
    for key in keys.chars().take(count) {
        pressed.push((at_ms, key));
        at_ms += rng.random_range(350..2_500);
    }
    pressed
}

impl Workload {
    /// That many calls, begun within so many ms.
    pub fn draw(calls: usize, within_ms: u64, rng: &mut StdRng) -> Self {
        let mut plans = Vec::new();
        for index in 0..calls {
            let kind = Kind::ALL[rng.random_range(0..Kind::ALL.len())];
            plans.push(Plan::draw(index, kind, within_ms, rng));
        }
        Self::of(plans, rng)
    }

    /// These calls.
    pub fn of(plans: Vec<Plan>, rng: &mut StdRng) -> Self {
        let customers: Vec<Customer> = (0..2)
            .map(|n| Customer {
                account: AccountSid([n as u8 + 1; 16]),
                auth_token: format!("secret-{n}"),
            })
            .collect();
        let mut directory = Directory::default();
        for customer in &customers {
            let account = Account {
                auth_token: customer.auth_token.clone(),
                active: true,
                ..Account::default()
            };
            directory.accounts.insert(customer.account, account);
        }
        let route = |region: usize| Route {
            prefix: format!("+77{region}"),
            node: edge_name(region),
            uri: format!("sip:{{number}}@{}:{SIP_PORT}", phone_ip(region)),
            without_instructions: false,
        };
        let routes = (0..REGIONS).map(route).collect();
        directory.tables = Tables { version: 1, nodes: Vec::new(), routes };
        directory.default_edge = Some(edge_name(0));
        let mut apps = AppServers { customers: customers.clone(), ..AppServers::default() };
        for plan in &plans {
            for (name, page) in plan.pages(rng) {
                apps.pages.insert(plan.path(name), page);
            }
            let account = customers[plan.customer].account;
            if plan.kind == Kind::ApiCall {
                directory.caller_ids.entry(account).or_default().insert(plan.number());
            } else if plan.kind != Kind::Unknown {
                directory.numbers.insert(plan.number(), plan.number_entry(account));
            }
        }
        Self { plans, directory, apps }
    }
}
