//! The keys at the top of `proxy.yaml`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use super::brute_force::{self, BruteForce};
use super::cors::{self, Cors};
use super::reader::{Item, Keys, Read};
use super::{
    AccessLog, Config, Dialect, Forwarded, Limits, Purpose, access_log, authz, keeping, limits, listeners,
    routes, store, tracing, upstreams,
};
use crate::policy::signature::DEFAULT_MAX_SKEW;
use crate::policy::{LeakedSecret, OutsideBrowser};

pub(super) const KEYS: Keys = Keys {
    known: &[
        "state_dir",
        "threads",
        "listeners",
        "admin",
        "authz",
        "limits",
        "store",
        "dialect",
        "master_key",
        "trusted_proxies",
        "brute_force",
        "leaked_secret",
        "publishable_outside_browser",
        "forwarded",
        "cors",
        "access_log",
        "tracing",
        "shutdown_delay",
        "shutdown_grace",
        "outage",
        "signature_max_skew",
        "max_signed_body",
        "lease",
        "usage",
        "policies",
        "upstreams",
        "routes",
    ],
    later: &[],
};

const LEAKED: [(&str, LeakedSecret); 2] = [("flag", LeakedSecret::Flag), ("refuse", LeakedSecret::Refuse)];

const OUTSIDE_BROWSER: [(&str, OutsideBrowser); 2] =
    [("ignore", OutsideBrowser::Ignore), ("report", OutsideBrowser::Report)];

const FORWARDED: [(&str, Forwarded); 4] = [
    ("none", Forwarded::None),
    ("x-forwarded", Forwarded::XForwarded),
    ("forwarded", Forwarded::Forwarded),
    ("both", Forwarded::Both),
];

const GRACE: Duration = Duration::from_secs(10);
const OUTAGE: Keys = Keys { known: &["grace"], later: &[] };
const OUTAGE_GRACE: Duration = Duration::from_mins(5);
const LONGEST_OUTAGE_GRACE: Duration = Duration::from_hours(24);
const LONGEST_SKEW: Duration = Duration::from_hours(1);
const POLICIES: u64 = 200_000;

const LONGEST_GRACE: Duration = Duration::from_hours(1);

/// Reads the whole file.
pub(super) fn read(root: &Item<'_>, path: &Path, purpose: Purpose) -> Read<Config> {
    let fields = root.fields(&KEYS, "a mapping of keys such as `listeners`, `upstreams` and `routes`")?;
    // Everything is read before anything can end this, so that all mistakes are told.
    let state_dir =
        fields.or("state_dir", root.resolve("state"), |item| item.path("the path of a directory"));
    let threads = fields.optional("threads", read_threads);
    let needs = |key: &str| purpose == Purpose::Server || fields.get(key).is_some();
    let listeners = if needs("listeners") { listeners::read(&fields) } else { Ok(Vec::new()) };
    let taken = || listeners.iter().flatten().flatten();
    let admin = fields.optional("admin", |item| listeners::read_admin(item, taken()));
    let others = admin
        .as_ref()
        .ok()
        .and_then(|admin| admin.as_ref().map(|(admin, _)| ("admin.address".to_owned(), admin.clone())));
    let authz = fields.optional("authz", |item| authz::read(item, taken().chain(&others)));
    let limits = fields.or("limits", Limits::default(), limits::read);
    let store = store::read(fields.get("store").as_ref(), state_dir.as_deref().ok());
    let dialect = fields.or("dialect", Dialect::Standard, read_dialect);
    let master_key = fields.or("master_key", None, Item::optional_secret);
    let trusted_proxies = fields.or("trusted_proxies", Vec::new(), read_networks);
    let brute_force = fields.or("brute_force", BruteForce::default(), brute_force::read);
    let trust = match (&listeners, &trusted_proxies) {
        (Ok(listeners), Ok(trusted)) => listeners::check_trusted(&fields, listeners, trusted.len()),
        _ => Ok(()),
    };
    let leaked_secret = fields.or("leaked_secret", LeakedSecret::default(), |item| item.choice(&LEAKED));
    let outside_browser = fields
        .or("publishable_outside_browser", OutsideBrowser::default(), |item| item.choice(&OUTSIDE_BROWSER));
    let forwarded = fields.or("forwarded", Forwarded::default(), |item| item.choice(&FORWARDED));
    let cors = fields.or("cors", Cors::default(), cors::read);
    let access_log = fields.or("access_log", (AccessLog::Stdout, None), access_log::read);
    let tracing = fields.optional("tracing", tracing::read);
    let shutdown_delay =
        fields.or("shutdown_delay", Duration::ZERO, |item| item.duration(Duration::ZERO..=LONGEST_GRACE));
    let shutdown_grace =
        fields.or("shutdown_grace", GRACE, |item| item.duration(Duration::ZERO..=LONGEST_GRACE));
    let outage_grace = fields.or("outage", OUTAGE_GRACE, read_outage);
    let signature_max_skew = fields.or("signature_max_skew", DEFAULT_MAX_SKEW, |item| {
        item.duration(Duration::from_secs(1)..=LONGEST_SKEW)
    });
    let reclaim_window = fields.or("lease", keeping::RECLAIM_WINDOW, keeping::read_lease);
    let usage_retention = fields.or("usage", keeping::RETENTION, keeping::read_usage);
    let policies = fields.or("policies", POLICIES, |item| item.integer(100..=10_000_000));
    let upstreams = if needs("upstreams") { upstreams::read(&fields) } else { Ok(BTreeMap::new()) };
    let names = upstreams
        .as_ref()
        .ok()
        .filter(|_| needs("upstreams"))
        .map(|upstreams| upstreams.keys().map(String::as_str).collect::<Vec<_>>());
    let routes = routes::read(&fields, names.as_deref());

    let (admin, metrics) = admin?.unzip();
    let (access_log, access_log_sampling) = access_log?;
    trust?;
    Ok(Config {
        path: path.to_owned(),
        digest: String::new(),
        files: Vec::new(),
        state_dir: state_dir?,
        threads: threads?,
        listeners: listeners?
            .into_iter()
            .map(|listener| listener.map(|(_, listener)| listener))
            .collect::<Read<_>>()?,
        admin,
        metrics: metrics.unwrap_or_default(),
        authz: authz?,
        limits: limits?,
        store: store?,
        dialect: dialect?,
        master_key: master_key?,
        trusted_proxies: trusted_proxies?,
        brute_force: brute_force?,
        leaked_secret: leaked_secret?,
        outside_browser: outside_browser?,
        forwarded: forwarded?,
        cors: cors?,
        access_log,
        access_log_sampling,
        tracing: tracing?,
        shutdown_delay: shutdown_delay?,
        shutdown_grace: shutdown_grace?,
        outage_grace: outage_grace?,
        signature_max_skew: signature_max_skew?,
        reclaim_window: reclaim_window?,
        usage_retention: usage_retention?,
        policies: usize::try_from(policies?).unwrap_or(usize::MAX),
        upstreams: upstreams?
            .into_iter()
            .map(|(name, upstream)| upstream.map(|upstream| (name, upstream)))
            .collect::<Read<_>>()?,
        routes: routes?,
    })
}

fn read_outage(item: &Item<'_>) -> Read<Duration> {
    let fields = item.fields(&OUTAGE, "a mapping such as `grace: 5m`")?;
    fields.or("grace", OUTAGE_GRACE, |item| item.duration(Duration::ZERO..=LONGEST_OUTAGE_GRACE))
}

fn read_threads(item: &Item<'_>) -> Read<NonZeroUsize> {
    let threads = item.integer(1..=256)?;
    let threads = usize::try_from(threads).ok().and_then(NonZeroUsize::new);
    threads.ok_or_else(|| item.refuse("expected another number of threads"))
}

fn read_dialect(item: &Item<'_>) -> Read<Dialect> {
    item.choice(&[("standard", Dialect::Standard), ("iex", Dialect::Iex)])
}

pub(super) fn read_networks(item: &Item<'_>) -> Read<Vec<IpNet>> {
    item.list_of("a list of addresses and networks such as [10.0.0.0/8]", |item| {
        let parse = |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let network: IpNet = item.parse("an address or a network such as 10.0.0.0/8", parse)?;
        if network == network.trunc() {
            return Ok(network);
        }
        let whole = network.trunc();
        Err(item.refuse(format!("{network} is an address within a network; did you mean {whole}?")))
    })
}
