//! `GET /v1/datasets`: what could be granted.

use serde_json::{Value, json};

use super::desk::Desk;

#[test]
fn lists_what_the_routes_name() {
    let desk = Desk::start();
    let answer = desk.call("GET", "/v1/datasets", Value::Null).expect(200);
    assert_eq!(answer.json(), json!({"datasets": ["CORE/*"]}));
    desk.call("GET", "/v1/datasets?x=1", Value::Null).expect(400);
}
