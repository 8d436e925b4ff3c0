//! Tools in words, for models whose template knows none: definitions for the system turn, earlier calls and results
//! for the turns of the conversation. Answers to them have the first of [`super::FORMS`].

use serde_json::{Value, json};

/// What the system turn says of the functions. Their definitions come from the caller and have been blunted.
pub(crate) fn tools_in_words(functions: &[Value]) -> String {
    let mut text = "You can call functions. Each line describes one as JSON:\n".to_owned();
    for function in functions {
        text.push_str(&function.to_string());
        text.push('\n');
    }
    text.push_str(
        "To call a function, write its name and arguments as JSON between two tags and nothing else:\n\
         <tool_call>\n{\"name\": \"function name\", \"arguments\": {\"argument\": \"value\"}}\n</tool_call>\n\
         The result comes between <tool_response> and </tool_response>; answer from it. \
         When no function is needed, answer as usual.",
    );
    text
}

/// An earlier call.
pub(crate) fn call_in_words(name: &str, arguments: &str) -> String {
    let arguments: Value =
        serde_json::from_str(arguments).unwrap_or_else(|_| Value::String(arguments.to_owned()));
    let name = json!(name);
    format!("<tool_call>\n{{\"name\": {name}, \"arguments\": {arguments}}}\n</tool_call>")
}

/// An earlier result.
pub(crate) fn result_in_words(result: &str) -> String {
    format!("<tool_response>\n{result}\n</tool_response>")
}
