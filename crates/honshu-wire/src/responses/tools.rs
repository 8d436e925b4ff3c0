//! Tools and the choice among them as they stand in a Responses body; Chat and Messages read theirs with the same
//! words.

use std::collections::HashSet;

use bytes::BytesMut;
use honshu_domain::{
    CustomTool, Demand, FunctionTool, GrammarSyntax, InputFormat, Tool, ToolChoice,
};

use crate::json::{Node, Path, put, put_str};
use crate::problems::{Findings, MISSING, WRONG_VALUE, raw};
use crate::sampling;

/// The tools of a body that was checked, from the text of its `tools`.
pub(super) fn tools_of(text: &str) -> Option<Vec<Tool>> {
    let node = crate::json::parse_text(text).ok()?;
    Some(tools(
        &node,
        &Path::Root.key("tools"),
        &mut Findings::default(),
    ))
}

/// Reads `tools`. Kinds that we do not know are carried: real agents always send some.
pub(super) fn tools(node: &Node<'_>, path: &Path<'_>, findings: &mut Findings) -> Vec<Tool> {
    let nodes = findings.tools(node, path);
    let mut tools = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let at = path.index(index);
        if node.as_object().is_none() {
            findings.expected(node, &at, "an object");
            continue;
        }
        match findings.required_string(node, "type", &at) {
            Some("function") => tools.extend(function(node, &at, findings).map(Tool::Function)),
            Some("custom") => tools.extend(custom(node, &at, Nesting::Flat, findings)),
            Some(kind) => {
                findings.hint_text(at.to_string());
                tools.extend(raw(node).map(|raw| Tool::Other {
                    kind: kind.into(),
                    raw,
                }));
            }
            None => {}
        }
    }
    check_names(&tools, path, Nesting::Flat, findings);
    tools
}

/// Where the members of a custom tool stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nesting {
    /// In the tool itself, and those of its grammar in the format: Responses.
    Flat,
    /// Under `custom`, and those of its grammar under `grammar`: Chat.
    Nested,
}

/// Reads the members of a custom tool.
pub(crate) fn custom(
    node: &Node<'_>,
    path: &Path<'_>,
    nesting: Nesting,
    findings: &mut Findings,
) -> Option<Tool> {
    let mut tool = CustomTool {
        name: "".into(),
        description: None,
        format: InputFormat::Text,
    };
    for (key, value) in findings.object(node, path)? {
        let at = path.key(key);
        match key.as_ref() {
            "type" => {}
            "name" => {
                if let Some(name) = findings.string(value, &at) {
                    tool.name = name.into();
                }
            }
            "description" => {
                tool.description = findings.string(value, &at).map(ToOwned::to_owned);
            }
            "format" => tool.format = input_format(value, &at, nesting, findings),
            _ => findings.hint(&at, value),
        }
    }
    if tool.name.is_empty() {
        let what = "required: the tool's name";
        findings.problem(&path.key("name"), MISSING, what);
    }
    Some(Tool::Custom(tool))
}

fn input_format(
    node: &Node<'_>,
    path: &Path<'_>,
    nesting: Nesting,
    findings: &mut Findings,
) -> InputFormat {
    if findings.object(node, path).is_none() {
        return InputFormat::Text;
    }
    match findings.required_string(node, "type", path) {
        Some("grammar") => {}
        Some("text") | None => return InputFormat::Text,
        Some(_) => {
            let what = "expected one of `text`, `grammar`";
            findings.problem(&path.key("type"), WRONG_VALUE, what);
            return InputFormat::Text;
        }
    }
    let at = path.key("grammar");
    let (owner, path) = match nesting {
        Nesting::Flat => (node, path),
        Nesting::Nested => match node.find("grammar") {
            Some(inner) if findings.object(inner, &at).is_some() => (inner, &at),
            Some(_) => return InputFormat::Text,
            None => {
                findings.missing(&at);
                return InputFormat::Text;
            }
        },
    };
    let syntax = match findings.required_string(owner, "syntax", path) {
        Some("lark") => Some(GrammarSyntax::Lark),
        Some("regex") => Some(GrammarSyntax::Regex),
        Some(_) => {
            let what = "expected one of `lark`, `regex`";
            findings.problem(&path.key("syntax"), WRONG_VALUE, what);
            None
        }
        None => None,
    };
    let definition = findings.required_string(owner, "definition", path);
    if definition == Some("") {
        let what = "must not be empty";
        findings.problem(&path.key("definition"), WRONG_VALUE, what);
    }
    match (syntax, definition) {
        (Some(syntax), Some(definition)) => InputFormat::Grammar {
            syntax,
            definition: definition.into(),
        },
        _ => InputFormat::Text,
    }
}

/// A call names its tool, so that a custom tool cannot share its name.
pub(crate) fn check_names(
    tools: &[Tool],
    path: &Path<'_>,
    nesting: Nesting,
    findings: &mut Findings,
) {
    if !tools.iter().any(|tool| matches!(tool, Tool::Custom(_))) {
        return;
    }
    let mut functions = HashSet::new();
    let mut customs = HashSet::new();
    for tool in tools {
        if let Tool::Function(function) = tool {
            functions.insert(&*function.name);
        }
    }
    for (index, tool) in tools.iter().enumerate() {
        if let Tool::Custom(custom) = tool
            && !custom.name.is_empty()
            && (functions.contains(&*custom.name) || !customs.insert(&*custom.name))
        {
            let at = path.index(index);
            let nested = at.key("custom");
            let owner = match nesting {
                Nesting::Flat => &at,
                Nesting::Nested => &nested,
            };
            let what = "another tool has this name";
            findings.problem(&owner.key("name"), WRONG_VALUE, what);
        }
    }
}

/// Reads the members of a function tool: flat in Responses, under `function` in Chat.
pub(crate) fn function(
    node: &Node<'_>,
    path: &Path<'_>,
    findings: &mut Findings,
) -> Option<FunctionTool> {
    callable(node, path, "parameters", "function", findings)
}

/// Reads what the dialects call a function or a tool; `schema` is the key of its parameters.
pub(crate) fn callable(
    node: &Node<'_>,
    path: &Path<'_>,
    schema: &str,
    what: &str,
    findings: &mut Findings,
) -> Option<FunctionTool> {
    let mut tool = FunctionTool {
        name: "".into(),
        description: None,
        parameters: None,
        strict: None,
    };
    for (key, value) in findings.object(node, path)? {
        let at = path.key(key);
        match key.as_ref() {
            "type" => {}
            "name" => {
                if let Some(name) = findings.string(value, &at) {
                    tool.name = name.into();
                }
            }
            "description" => {
                tool.description = findings.string(value, &at).map(ToOwned::to_owned);
            }
            key if key == schema => {
                if findings.object(value, &at).is_some() {
                    tool.parameters = raw(value);
                }
            }
            "strict" => tool.strict = findings.boolean(value, &at),
            _ => findings.hint(&at, value),
        }
    }
    if tool.strict == Some(true)
        && let Some(parameters) = node.find(schema)
    {
        sampling::refuse_loops(parameters, &path.key(schema), findings);
    }
    if tool.name.is_empty() {
        findings.problem(
            &path.key("name"),
            MISSING,
            format!("required: the {what}'s name"),
        );
    }
    Some(tool)
}

pub(super) fn tool_choice(
    node: &Node<'_>,
    path: &Path<'_>,
    allowed: &mut Option<Allowed>,
    findings: &mut Findings,
) -> ToolChoice {
    if let Some(word) = node.as_str() {
        return tool_choice_word(word, path, findings);
    }
    if node.is_null() {
        return ToolChoice::Auto;
    }
    if node.as_object().is_none() {
        findings.expected(node, path, "a string or an object");
        return ToolChoice::Auto;
    }
    match findings.required_string(node, "type", path) {
        Some("function") => match findings.required_string(node, "name", path) {
            Some(name) => ToolChoice::Function(name.into()),
            None => ToolChoice::Auto,
        },
        Some("custom") => match findings.required_string(node, "name", path) {
            Some(name) => ToolChoice::Custom(name.into()),
            None => ToolChoice::Auto,
        },
        Some("allowed_tools") => allowed_tools(node, path, allowed, findings),
        Some(_) => {
            // A choice that must be enforced, in terms that only this dialect's upstreams know.
            findings.demand(Demand::ForeignItems, path);
            other_choice(node)
        }
        None => ToolChoice::Auto,
    }
}

/// The words of `tool_choice`, the same in both dialects.
pub(crate) fn tool_choice_word(word: &str, path: &Path<'_>, findings: &mut Findings) -> ToolChoice {
    match word {
        "auto" => ToolChoice::Auto,
        "none" => ToolChoice::None,
        "required" => ToolChoice::Required,
        _ => {
            findings.problem(
                path,
                WRONG_VALUE,
                "expected one of `none`, `auto`, `required`, or an object",
            );
            ToolChoice::Auto
        }
    }
}

/// A choice that is carried.
pub(crate) fn other_choice(node: &Node<'_>) -> ToolChoice {
    raw(node).map_or(ToolChoice::Auto, ToolChoice::Other)
}

/// The tools that `allowed_tools` leaves of those in `tools`.
pub(crate) struct Allowed {
    /// Names of functions, each with the place that names it.
    functions: Vec<(String, String)>,
    /// The same for custom tools.
    customs: Vec<(String, String)>,
    /// Whether tools that we only carry are among them.
    others: bool,
}

impl Allowed {
    /// Takes the tools away that are not allowed: a model cannot call what it is not shown. The caller's own list
    /// goes on in the raw body, for upstreams of the same dialect, which enforce the choice themselves.
    pub(crate) fn narrow(self, tools: &mut Vec<Tool>, findings: &mut Findings) {
        for (name, path) in &self.functions {
            let known = tools
                .iter()
                .any(|tool| matches!(tool, Tool::Function(function) if *function.name == **name));
            if !known {
                let what = "names a function that is not in `tools`";
                findings.problem_at(path.clone(), WRONG_VALUE, what);
            }
        }
        for (name, path) in &self.customs {
            let known = tools
                .iter()
                .any(|tool| matches!(tool, Tool::Custom(custom) if *custom.name == **name));
            if !known {
                let what = "names a custom tool that is not in `tools`";
                findings.problem_at(path.clone(), WRONG_VALUE, what);
            }
        }
        let among =
            |names: &[(String, String)], name: &str| names.iter().any(|(known, _)| known == name);
        tools.retain(|tool| match tool {
            Tool::Function(function) => among(&self.functions, &function.name),
            Tool::Custom(custom) => among(&self.customs, &custom.name),
            Tool::Other { .. } => self.others,
        });
    }
}

/// Reads `mode` and `tools` of an `allowed_tools` choice; functions are flat in Responses and nested in Chat.
pub(crate) fn allowed_tools(
    node: &Node<'_>,
    path: &Path<'_>,
    allowed: &mut Option<Allowed>,
    findings: &mut Findings,
) -> ToolChoice {
    let at = path.key("tools");
    let mut found = Allowed {
        functions: Vec::new(),
        customs: Vec::new(),
        others: false,
    };
    match node.find("tools") {
        None => findings.missing(&at),
        Some(list) => {
            for (index, tool) in findings
                .array(list, &at)
                .unwrap_or_default()
                .iter()
                .enumerate()
            {
                let at = at.index(index);
                match findings.required_string(tool, "type", &at) {
                    Some(kind @ ("function" | "custom")) => {
                        let (owner, at) = match tool.find(kind) {
                            Some(inner) => (inner, at.key(kind)),
                            None => (tool, at),
                        };
                        if let Some(name) = findings.required_string(owner, "name", &at) {
                            let names = match kind {
                                "function" => &mut found.functions,
                                _ => &mut found.customs,
                            };
                            names.push((name.to_owned(), at.key("name").to_string()));
                        }
                    }
                    Some(_) => found.others = true,
                    None => {}
                }
            }
        }
    }
    *allowed = Some(found);
    let at = path.key("mode");
    let mode = node
        .find("mode")
        .and_then(|mode| findings.one_of(mode, &at, &["auto", "required"]));
    match mode {
        Some("required") => ToolChoice::Required,
        _ => ToolChoice::Auto,
    }
}

/// A forced choice must be possible. Both dialects share it.
pub(crate) fn check_tool_choice(choice: &ToolChoice, tools: &[Tool], findings: &mut Findings) {
    let root = Path::Root;
    let path = root.key("tool_choice");
    match choice {
        ToolChoice::Required => {
            if tools.is_empty() {
                findings.problem(
                    &path,
                    WRONG_VALUE,
                    "`required` needs at least one entry in `tools`",
                );
            }
            findings.demand(Demand::ForcedTool, &path);
        }
        ToolChoice::Function(name) => {
            let known = tools
                .iter()
                .any(|tool| matches!(tool, Tool::Function(function) if function.name == *name))
                // Namespaces hold functions that we do not look into.
                || tools.iter().any(|tool| matches!(tool, Tool::Other { .. }));
            if !known {
                let what = "names a function that is not in `tools`";
                findings.problem(&path, WRONG_VALUE, what);
            }
            findings.demand(Demand::ForcedTool, &path);
        }
        ToolChoice::Custom(name) => {
            let known = tools.iter().any(|tool| match tool {
                Tool::Custom(custom) => custom.name == *name,
                Tool::Function(_) => false,
                // Namespaces hold custom tools as well.
                Tool::Other { .. } => true,
            });
            if !known {
                let what = "names a custom tool that is not in `tools`";
                findings.problem(&path, WRONG_VALUE, what);
            }
            findings.demand(Demand::ForcedTool, &path);
        }
        ToolChoice::Auto | ToolChoice::None | ToolChoice::Other(_) => {}
    }
}

/// Writes a tool with all the keys that strict readers want: nullable ones present.
pub(crate) fn write_tool(tool: &Tool, out: &mut BytesMut) {
    match tool {
        Tool::Function(function) => {
            put(out, "{\"type\":\"function\",\"name\":");
            put_str(out, &function.name);
            put(out, ",\"description\":");
            match &function.description {
                Some(description) => put_str(out, description),
                None => put(out, "null"),
            }
            put(out, ",\"parameters\":");
            put(
                out,
                function.parameters.as_ref().map_or("null", |raw| raw.get()),
            );
            put(out, ",\"strict\":");
            put(
                out,
                match function.strict {
                    Some(true) => "true",
                    Some(false) => "false",
                    None => "null",
                },
            );
            put(out, "}");
        }
        Tool::Custom(custom) => {
            put(out, "{\"type\":\"custom\",\"name\":");
            put_str(out, &custom.name);
            if let Some(description) = &custom.description {
                put(out, ",\"description\":");
                put_str(out, description);
            }
            put(out, ",\"format\":");
            match &custom.format {
                InputFormat::Text => put(out, "{\"type\":\"text\"}"),
                InputFormat::Grammar { syntax, definition } => {
                    put(out, "{\"type\":\"grammar\",\"syntax\":\"");
                    put(out, syntax.as_str());
                    put(out, "\",\"definition\":");
                    put_str(out, definition);
                    put(out, "}");
                }
            }
            put(out, "}");
        }
        Tool::Other { raw, .. } => put(out, raw.get()),
    }
}
