use honshu_domain::{ErrorKind, Timestamp};
use serde_json::json;

use super::*;

fn problems<T: Details + std::fmt::Debug>(body: &[u8]) -> Vec<(String, String)> {
    let error = parse::<T>(body).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    error
        .problems()
        .iter()
        .map(|problem| (problem.path.clone(), problem.message.clone()))
        .collect()
}

fn paths<T: Details + std::fmt::Debug>(body: &[u8]) -> Vec<String> {
    problems::<T>(body)
        .into_iter()
        .map(|(path, _)| path)
        .collect()
}

#[test]
fn a_create_body_of_the_python_sdk_is_read() {
    let body = json!({
        "displayName": "osaka", "description": null, "compartmentId": "ocid1.compartment.oc1..a",
        "keyDetails": [{"keyName": "one"}, {"keyName": "two", "timeExpiry": "2027-02-20T12:00:00Z"}],
        "freeformTags": {"team": "a"}, "definedTags": {"ops": {"cost": 42}}, "somethingNew": [1, 2],
    });
    let details: CreateApiKeyDetails = parse(body.to_string().as_bytes()).unwrap();
    assert_eq!(details.key_details[0].time_expiry, None);
    assert_eq!(
        details.key_details[1].time_expiry,
        Timestamp::parse_rfc3339("2027-02-20T12:00:00Z")
    );
    assert_eq!(details.freeform_tags.unwrap()["team"], "a");
    assert_eq!(details.defined_tags.unwrap()["ops"]["cost"], 42);
}

#[test]
fn every_problem_is_reported_at_once_with_its_path() {
    let body = json!({
        "displayName": 7, "keyDetails": [{"timeExpiry": "tomorrow"}, "x", {"keyName": []}],
        "freeformTags": {"a": 1}, "definedTags": {"b": 2},
    });
    assert_eq!(
        paths::<CreateApiKeyDetails>(body.to_string().as_bytes()),
        [
            "displayName",
            "compartmentId",
            "keyDetails[0].keyName",
            "keyDetails[0].timeExpiry",
            "keyDetails[1]",
            "keyDetails[2].keyName",
            "freeformTags.a",
            "definedTags.b",
        ]
    );
}

#[test]
fn bodies_that_are_no_json_object_are_refused_in_words() {
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let deep = format!("{{\"a\":{deep}}}");
    for (body, expected) in [
        (&b""[..], "the body is empty"),
        (b"  \n", "the body is empty"),
        (b"\xff{}", "the body is not UTF-8 at byte 0"),
        (b"{", "the body is not JSON"),
        (b"{} x", "the body is not JSON"),
        (b"[]", "a JSON object is expected"),
        (b"null", "a JSON object is expected"),
        (deep.as_bytes(), "nested deeper than 64 levels"),
    ] {
        let found = problems::<UpdateApiKeyDetails>(body);
        assert!(found[0].1.contains(expected), "{found:?}");
    }
}

#[test]
fn a_repeated_key_is_refused_at_any_depth() {
    assert_eq!(
        paths::<CreateApiKeyDetails>(
            br#"{"displayName":"a","displayName":"b","compartmentId":"c","keyDetails":[{"keyName":"x","keyName":"y"}]}"#
        ),
        ["displayName", "keyDetails[0].keyName"]
    );
}

#[test]
fn null_and_absent_mean_unchanged_in_updates() {
    let details: UpdatePolicyDetails = parse(
        br#"{"description":null,"statements":["allow group A to inspect policies in tenancy"]}"#,
    )
    .unwrap();
    assert_eq!(details.description, None);
    assert_eq!(details.statements.unwrap().len(), 1);
}

#[test]
fn the_secret_of_an_item_is_never_in_debug_output_and_absent_without_value() {
    let mut item: ApiKeyItem = serde_json::from_value(json!({
        "key": "sk-verysecret", "keyName": "one", "keyMask": "sk-****cret",
        "timeCreated": "2026-11-23T00:00:00Z", "timeExpiry": "2027-02-23T00:00:00Z", "state": "ACTIVE",
    }))
    .unwrap();
    assert!(!format!("{item:?}").contains("verysecret"));
    item.key = None;
    assert_eq!(
        serde_json::to_value(&item).unwrap(),
        json!({
            "keyName": "one", "keyMask": "sk-****cret",
            "timeCreated": "2026-11-23T00:00:00.000Z", "timeExpiry": "2027-02-23T00:00:00.000Z", "state": "ACTIVE",
        })
    );
}

#[test]
fn a_base_model_writes_its_compartment_as_null() {
    let summary: ModelSummary = serde_json::from_value(json!({
        "id": "ocid1.generativeaimodel.oc1.local-1.a", "compartmentId": null, "capabilities": ["CHAT"],
        "lifecycleState": "ACTIVE", "timeCreated": "2026-11-23T00:00:00Z", "type": "BASE",
    }))
    .unwrap();
    let model = serde_json::to_value(Model {
        summary,
        description: None,
        time_updated: None,
    })
    .unwrap();
    assert_eq!(model["compartmentId"], serde_json::Value::Null);
    assert_eq!(model["type"], "BASE");
    assert!(model.as_object().unwrap().contains_key("compartmentId"));
    assert!(!model.as_object().unwrap().contains_key("vendor"));
}
