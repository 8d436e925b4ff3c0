//! What a chat template can do, found by rendering small conversations with it once when it is compiled: templates
//! declare nothing. Must never fail a model: what cannot be found out counts as not there.

use serde_json::{Value, json};

use super::Compiled;
use super::turns::{Call, Turn, adapt, to_messages};

/// How a template takes the arguments of an earlier call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arguments {
    /// As a JSON text.
    Text,
    /// As a mapping.
    Object,
    /// It knows no calls.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// A system turn at the start.
    pub system: bool,
    /// A system turn at another place.
    pub late_system: bool,
    /// The role `developer`.
    pub developer: bool,
    /// User and assistant must take turns.
    pub alternate: bool,
    /// Content must be a list of parts.
    pub typed_content: bool,
    /// Definitions of tools.
    pub tools: bool,
    /// An empty list of tools where there are none; most templates want the word to be undefined.
    pub empty_tools: bool,
    pub arguments: Arguments,
    /// No turn may have two calls.
    pub one_call_a_turn: bool,
    /// Call ids must be nine letters and digits.
    pub short_call_ids: bool,
    /// Where an answer's reasoning is looked for.
    pub reasoning_field: &'static str,
}

const SYSTEM: &str = "PROBE-SYSTEM";
const FIRST: &str = "PROBE-FIRST";
const SECOND: &str = "PROBE-SECOND";
const RESULT: &str = "PROBE-RESULT";

pub(super) fn probe(template: &Compiled) -> Capabilities {
    let source = &*template.source;
    let mut can = Capabilities {
        system: true,
        late_system: true,
        developer: false,
        alternate: false,
        typed_content: false,
        tools: false,
        empty_tools: false,
        arguments: Arguments::Unknown,
        one_call_a_turn: false,
        short_call_ids: source.contains("length != 9") || source.contains("length == 9"),
        reasoning_field: reasoning_field(source),
    };
    let shows = |can: &Capabilities, turns: &[Turn], words: &[&str]| -> bool {
        let none = can.empty_tools.then(|| json!([]));
        template
            .render(to_messages(turns, can), none)
            .is_ok_and(|text| words.iter().all(|word| text.contains(word)))
    };
    let user = || Turn::new("user", FIRST);

    if !shows(&can, &[user()], &[FIRST]) {
        can.typed_content = true;
        can.typed_content = shows(&can, &[user()], &[FIRST]);
    }
    if !can.typed_content && !shows(&can, &[user()], &[FIRST]) {
        can.empty_tools = true;
        can.empty_tools = shows(&can, &[user()], &[FIRST]);
    }
    can.system = shows(
        &can,
        &[Turn::new("system", SYSTEM), user()],
        &[SYSTEM, FIRST],
    );
    can.developer = source.contains("developer")
        && shows(
            &can,
            &[Turn::new("developer", SYSTEM), user()],
            &[SYSTEM, FIRST],
        );
    let middle = Turn::new("assistant", "PROBE-ANSWER");
    let late = [
        user(),
        middle,
        Turn::new("system", SYSTEM),
        Turn::new("user", SECOND),
    ];
    can.late_system = can.system && shows(&can, &late, &[FIRST, SYSTEM, SECOND]);
    can.alternate = !shows(&can, &[user(), Turn::new("user", SECOND)], &[FIRST, SECOND]);

    let tools = json!([{"type": "function", "function": {
        "name": "probe_tool", "description": "probes",
        "parameters": {"type": "object", "properties": {"probe_key": {"type": "string", "description": "a key"}}, "required": ["probe_key"]},
    }}]);
    can.tools = source.contains("tools")
        && template
            .render(to_messages(&[user()], &can), Some(tools))
            .is_ok_and(|text| text.contains("probe_tool"));
    probe_calls(template, &mut can);
    can
}

/// The field in which a template looks for the reasoning of earlier answers.
fn reasoning_field(source: &str) -> &'static str {
    let reads = |field: &&&str| {
        [".", "'", "\""]
            .iter()
            .any(|before| source.contains(&format!("{before}{field}")))
    };
    ["reasoning_content", "thinking", "reasoning"]
        .iter()
        .find(reads)
        .unwrap_or(&"reasoning_content")
}

fn probe_calls(template: &Compiled, can: &mut Capabilities) {
    if !template.source.contains("tool_calls") {
        return;
    }
    let arguments = r#"{"probe_key": "probe \"value\""}"#;
    let call = |id: &str, name: &str| Call {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
    };
    let result = |id: &str| Turn {
        call_id: Some(id.to_owned()),
        name: Some("probe_call".to_owned()),
        ..Turn::new("tool", RESULT)
    };
    let render = |can: &Capabilities, calls: Vec<Call>| {
        let mut turns = vec![
            Turn::new("user", FIRST),
            Turn {
                calls,
                ..Turn::new("assistant", "")
            },
        ];
        turns.extend(turns[1].calls.clone().iter().map(|call| result(&call.id)));
        let messages: Value = to_messages(&adapt(turns, can), can);
        template
            .render(messages, can.empty_tools.then(|| json!([])))
            .ok()
    };
    let words = ["probe_call", "probe_key", "value", RESULT];
    // A text that was written as JSON once more shows its quotes doubly escaped.
    let whole = |text: &String| {
        words.iter().all(|word| text.contains(word)) && !text.contains(r#"\"probe_key"#)
    };
    for form in [Arguments::Text, Arguments::Object] {
        can.arguments = form;
        let one = || vec![call("callaaaa1", "probe_call")];
        if !render(can, one()).as_ref().is_some_and(whole) {
            continue;
        }
        // A template that has a form of its own for mappings, and no JSON, must get one.
        let mapping = Capabilities {
            arguments: Arguments::Object,
            ..can.clone()
        };
        let own_form =
            |text: &String| !text.contains("\"probe_key\"") && !text.contains("'probe_key'");
        if render(&mapping, one()).is_some_and(|text| whole(&text) && own_form(&text)) {
            can.arguments = Arguments::Object;
        }
        let two = vec![
            call("callaaaa1", "probe_call"),
            call("callaaaa2", "probe_other"),
        ];
        let shows_both =
            |text: &String| text.contains("probe_call") && text.contains("probe_other");
        can.one_call_a_turn = !render(can, two).as_ref().is_some_and(shows_both);
        return;
    }
    can.arguments = Arguments::Unknown;
}
