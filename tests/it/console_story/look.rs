//! How the pages look: no serious finding of an accessibility engine on any page, in either scheme, and at the width of a
//! phone nothing to scroll sideways, however long the words. With `SCREENSHOTS=DIRECTORY` it leaves a picture of each.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::{CARS, CORE, ROUTES, ask};
use crate::harness::browser::Browser;
use crate::harness::browser::desk::Desk;
use crate::harness::gate::{Gate, Plan};
use crate::harness::installed::{installed, run};
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

/// The version of axe-core that judges.
const AXE: &str = "axe-core@4.14.1";
/// What axe-core is to look at: the rules of WCAG 2.2 AA, and good practice.
const JUDGE: &str = "const done = arguments[arguments.length - 1]; \
    axe.run(document, {resultTypes: ['violations']}).then( \
        (found) => done(found.violations.filter((one) => ['serious', 'critical'].includes(one.impact)).map( \
            (one) => one.id + ': ' + one.nodes.map((node) => node.html + ' ' + node.failureSummary).join(' | '))), \
        (error) => done(['axe failed: ' + error]));";
/// The elements that reach beyond the window and make it scroll; none where it does not scroll.
const WIDER: &str = "const page = document.documentElement; \
    if (page.scrollWidth <= innerWidth) return []; \
    const beyond = [...document.querySelectorAll('main *, header *')].filter((one) => !one.closest('.wide') \
        && one.scrollWidth + one.getBoundingClientRect().left > innerWidth); \
    return [page.scrollWidth + ' pixels in ' + innerWidth, ...beyond.slice(-3).map((one) => one.outerHTML.slice(0, 200))];";

fn axe() -> String {
    let folder = installed("axe-core", |folder| {
        let packages = ["install", "--no-audit", "--no-fund", "--no-save", AXE];
        run(Command::new("npm").args(packages).current_dir(folder));
    });
    fs::read_to_string(folder.join("node_modules/axe-core/axe.min.js")).expect("axe-core")
}

/// A console with something to show: its pages, by a name for their pictures.
async fn furnish(gate: &mut Gate) -> Vec<(&'static str, String)> {
    let customer = json!({
        "nickname": "Customer XYZ", "premium_access": true,
        "datasets": [{"dataset": "MY/CARS", "operations": ["read"]}, {"dataset": "MY/BIKES", "operations": ["read", "write"]}],
        "allowed_domains": ["www.example.com", "*.example.org"],
        "credit_limit": {"core": {"credits": 40, "period": "month"}, "premium": null},
        "rate_limit": {"requests_per_second": 500, "burst": 1000},
    });
    let customer = gate.token(customer).await;
    let spent = gate
        .token(json!({"nickname": "Trial", "credit_limit": {"core": {"credits": 5, "period": "day"}}}))
        .await;
    let disabled = gate.token(json!({"nickname": "Old app", "status": "disabled"})).await;
    let _unnamed = gate.token(json!({})).await;
    // Words that nothing allows to break, of the widest letter.
    let word = "W".repeat(60);
    let domain = format!("{word}.{word}.example.com");
    let wide = json!({
        "nickname": word.repeat(3),
        "datasets": [{"dataset": format!("MY/{word}"), "operations": ["read", "write"]}],
        "allowed_domains": [domain.to_lowercase()],
    });
    let wide = gate.token(wide).await;
    let page = Some("https://www.example.com/app");
    for _ in 0..25 {
        ask(gate, &customer.value, CORE, page).await;
        ask(gate, &customer.value, CARS, page).await;
        ask(gate, &spent.value, CORE, None).await;
    }
    for _ in 0..5 {
        ask(gate, &customer.value, CORE, Some("https://evil.test/")).await;
        ask(gate, &disabled.value, CORE, None).await;
    }
    ask(gate, &wide.value, CORE, Some(&format!("https://{domain}/"))).await;
    gate.admin(
        "PATCH",
        "/v1/account",
        Some(json!({"budget": {"core": {"credits": 1000, "period": "month"}}})),
    )
    .await;
    gate.wait_used(&customer, 40).await;
    let invited =
        gate.admin("POST", "/v1/members", Some(json!({"name": "ada@example.com", "role": "viewer"}))).await;
    assert_eq!(invited.status, 201, "{}", invited.text());
    let invited = gate
        .admin("POST", "/v1/members", Some(json!({"name": format!("{word}@example.com"), "role": "viewer"})))
        .await;
    assert_eq!(invited.status, 201, "{}", invited.text());
    let remove =
        invited.json()["id"].as_str().map(|id| format!("/console/people/{id}/remove")).expect("an id");
    let refused = || async { gate.admin("GET", "/v1/usage", None).await.text().contains("domain_denied") };
    wait_for("refusals to be counted", refused).await;
    vec![
        ("tokens", "/console/tokens".to_owned()),
        ("search", "/console/tokens?q=nothing&status=active".to_owned()),
        ("new-token", "/console/tokens/new".to_owned()),
        ("token", format!("/console/tokens/{}", customer.id)),
        ("revoke", format!("/console/tokens/{}/revoke", customer.id)),
        ("usage", "/console/usage".to_owned()),
        ("usage-token", format!("/console/usage?token={}&by=dataset", customer.id)),
        ("explain", "/console/explain".to_owned()),
        ("nodes", "/console/nodes".to_owned()),
        ("audit", "/console/audit".to_owned()),
        ("people", "/console/people".to_owned()),
        ("wide-token", format!("/console/tokens/{}", wide.id)),
        ("wide-revoke", format!("/console/tokens/{}/revoke", wide.id)),
        ("wide-usage", format!("/console/usage?token={}&by=dataset", wide.id)),
        ("wide-search", format!("/console/tokens?q={}", word.repeat(3))),
        ("wide-remove", remove),
        ("failure", "/console/tokens/tok_nobody".to_owned()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_page_has_a_serious_fault_for_people_with_disabilities_in_either_scheme() {
    let axe = axe();
    let upstream = Upstream::start().await;
    let (mut gate, browser) = tokio::join!(Plan::new(&upstream).routes(ROUTES).start(), Browser::start());
    let desk = Desk::at(&browser, gate.admin);
    let pictures = std::env::var_os("SCREENSHOTS").map(PathBuf::from);
    let mut pages = furnish(&mut gate).await;
    let mut faults = Vec::new();
    let mut look = async |desk: &Desk<'_>, name: &str, path: &str| {
        for (way, scheme, width) in
            [("light", "light", 1280), ("dark", "dark", 1280), ("phone", "light", 390)]
        {
            desk.look(scheme, width).await;
            desk.open(path).await;
            desk.run(&axe, Vec::new()).await;
            let found = desk.run_to_end(JUDGE).await;
            let found = found.as_array().cloned().unwrap_or_else(|| vec![json!("no judgement")]);
            faults.extend(
                found.iter().map(|fault| format!("{name} ({way}): {}", fault.as_str().unwrap_or("?"))),
            );
            let wider = desk.run(WIDER, Vec::new()).await;
            if wider != Value::Array(Vec::new()) {
                faults.push(format!("{name} ({way}): wider than the window: {wider}"));
            }
            if let Some(directory) = &pictures {
                fs::create_dir_all(directory).expect("a directory");
                fs::write(directory.join(format!("{name}-{way}.png")), desk.picture(width).await)
                    .expect("a picture");
            }
        }
    };
    look(&desk, "sign-in", "/console/sign-in").await;
    desk.look("light", 1280).await;
    desk.sign_in(&gate.secret()).await;
    for (name, path) in pages.drain(..) {
        look(&desk, name, &path).await;
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
