//! The account and its budget.

use serde_json::{Value, json};

use super::desk::Desk;

#[test]
fn a_budget_is_read_and_edited_by_merge_patch() {
    let desk = Desk::start();
    let answer = desk.call("GET", "/v1/account", Value::Null).expect(200);
    assert_eq!(answer.header("etag"), "\"1\"");
    let account = answer.json();
    assert_eq!(account["id"], "default");
    assert_eq!(account["created_at"], "1970-01-01T00:00:00Z");
    assert_eq!(account["budget"], json!({"core": null, "premium": null}));
    assert_eq!(account["usage"]["core"]["used"], 0);
    assert_eq!(account["usage"]["core"]["remaining"], Value::Null);

    let month = json!({"credits": 1_000_000, "period": "month"});
    let hour = json!({"credits": 0, "period": "hour"});
    // (the patch, the budget then)
    let steps = [
        (json!({"budget": {"core": month}}), json!({"core": month, "premium": null})),
        (json!({"budget": {"premium": hour}}), json!({"core": month, "premium": hour})),
        (json!({}), json!({"core": month, "premium": hour})),
        (json!({"budget": {"core": null}}), json!({"core": null, "premium": hour})),
        (json!({"budget": null}), json!({"core": null, "premium": null})),
    ];
    for (at, (patch, budget)) in steps.into_iter().enumerate() {
        let answer = desk.call("PATCH", "/v1/account", patch).expect(200);
        assert_eq!(answer.json()["budget"], budget);
        assert_eq!(answer.header("etag"), format!("\"{}\"", at + 2));
        assert_eq!(desk.call("GET", "/v1/account", Value::Null).json()["budget"], budget);
    }
}

#[test]
fn wrong_budgets_are_named_and_change_nothing() {
    let desk = Desk::start();
    let table: [(Value, &[&str]); 5] = [
        (json!({"id": "x"}), &["/id"]),
        (json!({"budget": 5}), &["/budget"]),
        (json!({"budget": {"core": {"credits": 1}, "other": 1}}), &["/budget/other", "/budget/core/period"]),
        (
            json!({"budget": {"premium": {"credits": "1", "period": 1}}}),
            &["/budget/premium/credits", "/budget/premium/period"],
        ),
        (json!([]), &[""]),
    ];
    for (body, pointers) in table {
        let answer = desk.call("PATCH", "/v1/account", body).expect(422);
        assert_eq!(answer.pointers(), pointers);
    }
    assert_eq!(desk.call("GET", "/v1/account", Value::Null).json()["version"], 1);
}
