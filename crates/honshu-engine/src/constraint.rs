//! Answers that must have a form: JSON schemas, JSON mode, regular expressions and Lark grammars, compiled by
//! llguidance into sets of tokens.
//!
//! A schema is a stranger's program. Whatever it says, this module answers with a grammar or an error: never a crash,
//! never a fetch of a remote `$ref`, never more than a bounded amount of memory and time.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::toktrie::{
    InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv,
};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory, TokenParser};
use serde_json::Value;

use crate::error::EngineError;
use crate::job::{Constraint, Token, TokenMask};
use crate::model::LoadedModel;
use crate::sys;

/// Longest schema, regular expression or grammar, in bytes.
pub const GRAMMAR_BYTES_MAX: usize = 256 << 10;
/// Compiled grammars that are kept for the next request, for each model.
const CACHE_ENTRIES_MAX: usize = 32;
/// Longer grammars are compiled each time; they would fill the cache's memory.
const CACHE_BYTES_MAX: usize = 64 << 10;
/// Largest `minItems`, `maxItems`, `minProperties` and `maxProperties`: each costs a rule of the grammar.
const COUNT_MAX: u64 = 4_096;
/// Largest `minLength` and `maxLength`, in characters.
const LENGTH_MAX: u64 = 100_000;
/// Lexer states of one answer, about 2 kB each.
const LEXER_STATES_MAX: usize = 50_000;
/// Symbols of a grammar.
const GRAMMAR_SYMBOLS_MAX: usize = 200_000;
/// White space between the tokens of a JSON answer. Bounded, because small models can fall into endless indentation.
const WHITE_SPACE: &str = r"[ \n\t]{1,24}";

/// The form that an answer must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grammar<'a> {
    /// JSON that satisfies a schema.
    JsonSchema {
        /// The schema as JSON text.
        schema: &'a str,
        /// True refuses schemas that cannot be enforced in full; false enforces what can be.
        strict: bool,
    },
    /// A JSON object.
    JsonObject,
    /// Text that matches this regular expression as a whole (Rust syntax, without look-around).
    Regex(&'a str),
    /// Text of this grammar, in llguidance's form of Lark.
    Lark(&'a str),
    /// Text of several grammars.
    Composed(&'a Composition),
}

/// A grammar that refers to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composition {
    /// In llguidance's form of Lark; `@p0` is the first of the parts.
    pub lark: String,
    /// The parts.
    pub parts: Vec<Part>,
}

/// A part of a [`Composition`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// JSON that satisfies a schema; see [`Grammar::JsonSchema`].
    Schema {
        /// The schema.
        schema: Value,
        /// True refuses schemas that cannot be enforced in full.
        strict: bool,
    },
    /// See [`Grammar::Regex`].
    Regex(String),
    /// See [`Grammar::Lark`].
    Lark(String),
}

/// A form cannot be enforced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrammarError {
    /// It is not well-formed, or uses what cannot be enforced.
    #[error("{0}")]
    Unsupported(String),
    /// It is larger than [`GRAMMAR_BYTES_MAX`].
    #[error("it has {bytes} bytes and at most {GRAMMAR_BYTES_MAX} are taken")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The model's vocabulary cannot be used for constrained answers.
    #[error("this model cannot give constrained answers: {0}")]
    Vocabulary(String),
}

/// Makes constraints for one model. Cheap to clone.
#[derive(Clone)]
pub struct Grammars {
    inner: Arc<Inner>,
}

struct Inner {
    vocabulary: Mutex<Option<Tokens>>,
    factory: OnceLock<Result<ParserFactory, GrammarError>>,
    cache: Mutex<Vec<(String, Compiled)>>,
    n_vocab: usize,
}

#[derive(Clone)]
struct Compiled {
    parser: TokenParser,
    not_enforced: Arc<[String]>,
}

/// A grammar that can be begun many times, for constraints that hold only for parts of an answer.
pub(crate) struct Template {
    parser: TokenParser,
}

impl Template {
    /// A matcher at the grammar's beginning.
    pub(crate) fn begin(&self) -> Result<Masked, EngineError> {
        Masked::new(self.parser.deep_clone()).map_err(|error| failed(&error.to_string()))
    }
}

/// A constraint, and what of the form it does not enforce.
pub struct MadeConstraint {
    /// For [`Job::constraint`](crate::Job::constraint).
    pub constraint: Box<dyn Constraint>,
    /// Notes on parts of the schema that are not enforced; empty for strict schemas.
    pub not_enforced: Arc<[String]>,
}

impl std::fmt::Debug for MadeConstraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MadeConstraint")
            .field("not_enforced", &self.not_enforced)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammars")
            .field("n_vocab", &self.inner.n_vocab)
            .finish_non_exhaustive()
    }
}

impl Grammars {
    /// Prepares for a model. The index of its vocabulary (a tenth of a second to a second) is made by [`Self::warm`]
    /// or the first use.
    #[must_use]
    pub fn new(model: &LoadedModel) -> Self {
        let n_vocab = model.meta().n_vocab;
        let vocabulary = Tokens::read(model, n_vocab);
        Self {
            inner: Arc::new(Inner {
                vocabulary: Mutex::new(Some(vocabulary)),
                factory: OnceLock::new(),
                cache: Mutex::default(),
                n_vocab,
            }),
        }
    }

    /// Makes the index of the vocabulary now, on this thread.
    pub fn warm(&self) {
        let _ = self.factory();
    }

    fn factory(&self) -> Result<&ParserFactory, GrammarError> {
        self.inner
            .factory
            .get_or_init(|| {
                let vocabulary = self
                    .inner
                    .vocabulary
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
                let missing =
                    || GrammarError::Vocabulary("its vocabulary could not be indexed".to_owned());
                // The index's own checks are assertions.
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    factory(vocabulary.ok_or_else(missing)?)
                }))
                .unwrap_or_else(|_| Err(missing()))
            })
            .as_ref()
            .map_err(Clone::clone)
    }

    /// Makes a constraint. Takes milliseconds for a new form (up to a second for a huge one) and less for a known one;
    /// not for async threads.
    ///
    /// # Errors
    /// [`GrammarError`], in words for whoever wrote the form.
    pub fn constraint(&self, grammar: Grammar<'_>) -> Result<MadeConstraint, GrammarError> {
        let compiled = self.compiled(grammar)?;
        let not_enforced = Arc::clone(&compiled.not_enforced);
        Ok(MadeConstraint {
            constraint: Box::new(Masked::new(compiled.parser)?),
            not_enforced,
        })
    }

    /// A grammar for later.
    ///
    /// # Errors
    /// As [`Self::constraint`].
    pub(crate) fn template(&self, grammar: Grammar<'_>) -> Result<Template, GrammarError> {
        let parser = self.compiled(grammar)?.parser;
        Ok(Template { parser })
    }

    fn compiled(&self, grammar: Grammar<'_>) -> Result<Compiled, GrammarError> {
        let (key, bytes) = cache_key(grammar);
        if bytes > GRAMMAR_BYTES_MAX {
            return Err(GrammarError::TooLarge { bytes });
        }
        let known = {
            let mut cache = self
                .inner
                .cache
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            cache.iter().position(|(other, _)| *other == key).map(|at| {
                let entry = cache.remove(at);
                let parser = entry.1.parser.deep_clone();
                let not_enforced = Arc::clone(&entry.1.not_enforced);
                cache.push(entry);
                Compiled {
                    parser,
                    not_enforced,
                }
            })
        };
        let compiled = match known {
            Some(compiled) => compiled,
            None => {
                let compiled = self.compile(grammar)?;
                if bytes <= CACHE_BYTES_MAX {
                    let copy = Compiled {
                        parser: compiled.parser.deep_clone(),
                        not_enforced: Arc::clone(&compiled.not_enforced),
                    };
                    let mut cache = self
                        .inner
                        .cache
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    if cache.len() >= CACHE_ENTRIES_MAX {
                        cache.remove(0);
                    }
                    cache.push((key, copy));
                }
                compiled
            }
        };
        Ok(compiled)
    }

    fn compile(&self, grammar: Grammar<'_>) -> Result<Compiled, GrammarError> {
        let factory = self.factory()?;
        let top = match grammar {
            Grammar::Composed(composition) => composed(composition)?,
            Grammar::JsonSchema { schema, strict } => {
                let schema = serde_json::from_str(schema).map_err(|error| {
                    GrammarError::Unsupported(format!("the schema is not JSON: {error}"))
                })?;
                TopLevelGrammar::from_json_schema(json_grammar(schema, strict)?)
            }
            Grammar::JsonObject => {
                let any = serde_json::json!({"type": "object"});
                TopLevelGrammar::from_json_schema(json_grammar(any, true)?)
            }
            Grammar::Regex(pattern) => TopLevelGrammar::from_regex(pattern),
            Grammar::Lark(source) => TopLevelGrammar::from_lark(source.to_owned()),
        };
        let mut parser = factory
            .create_parser(top)
            .map_err(|error| refused(&error.to_string()))?;
        let not_enforced = parser.grammar_warnings().into();
        Ok(Compiled {
            parser,
            not_enforced,
        })
    }
}

fn cache_key(grammar: Grammar<'_>) -> (String, usize) {
    match grammar {
        Grammar::JsonSchema { schema, strict } => {
            (format!("schema {strict} {schema}"), schema.len())
        }
        Grammar::JsonObject => ("object".to_owned(), 0),
        Grammar::Regex(pattern) => (format!("regex {pattern}"), pattern.len()),
        Grammar::Lark(source) => (format!("lark {source}"), source.len()),
        Grammar::Composed(Composition { lark, parts }) => {
            let mut key = format!("composed {lark}");
            for part in parts {
                match part {
                    Part::Schema { schema, strict } => {
                        key.push_str(&format!("\n schema {strict} {schema}"));
                    }
                    Part::Regex(source) => key.push_str(&format!("\n regex {source}")),
                    Part::Lark(source) => key.push_str(&format!("\n lark {source}")),
                }
            }
            let bytes = key.len();
            (key, bytes)
        }
    }
}

/// llguidance's first line, which names the place; what follows is its own state.
fn refused(message: &str) -> GrammarError {
    if message.starts_with("panic") {
        return GrammarError::Unsupported(
            "it cannot be enforced: the compiler of grammars failed on it".to_owned(),
        );
    }
    let line: String = message
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(400)
        .collect();
    GrammarError::Unsupported(format!("it cannot be enforced: {line}"))
}

fn composed(composition: &Composition) -> Result<TopLevelGrammar, GrammarError> {
    let mut grammars = vec![GrammarWithLexer::from_lark(composition.lark.clone())];
    for (index, part) in composition.parts.iter().enumerate() {
        let mut grammar = match part {
            Part::Schema { schema, strict } => {
                GrammarWithLexer::from_json_schema(json_grammar(schema.clone(), *strict)?)
            }
            Part::Regex(source) => GrammarWithLexer::from_regex(source),
            Part::Lark(source) => GrammarWithLexer::from_lark(source.clone()),
        };
        grammar.name = Some(format!("p{index}"));
        grammars.push(grammar);
    }
    Ok(TopLevelGrammar {
        grammars,
        max_tokens: None,
    })
}

/// The schema with our own options of the compiler.
fn json_grammar(mut schema: Value, strict: bool) -> Result<Value, GrammarError> {
    if schema == Value::Bool(true) {
        schema = serde_json::json!({});
    }
    check_bounds(&schema, 0)?;
    let Value::Object(fields) = &mut schema else {
        return Err(GrammarError::Unsupported(
            "a schema is an object".to_owned(),
        ));
    };
    // A caller's own options of the compiler would undo the bounds that are set here.
    fields.remove("x-guidance");
    let options = JsonCompileOptions {
        whitespace_pattern: Some(WHITE_SPACE.to_owned()),
        coerce_one_of: !strict,
        lenient: !strict,
        ..JsonCompileOptions::default()
    };
    options.apply_to(&mut schema);
    Ok(schema)
}

/// Refuses numbers that would make the grammar itself huge.
fn check_bounds(schema: &Value, depth: usize) -> Result<(), GrammarError> {
    if depth > 200 {
        return Err(GrammarError::Unsupported(
            "the schema is nested too deeply".to_owned(),
        ));
    }
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                let max = match key.as_str() {
                    "minItems" | "maxItems" | "minProperties" | "maxProperties" => COUNT_MAX,
                    "minLength" | "maxLength" => LENGTH_MAX,
                    _ => u64::MAX,
                };
                if let Some(number) = value.as_f64().filter(|number| *number > max as f64) {
                    return Err(GrammarError::Unsupported(format!(
                        "`{key}` is {number} and at most {max} can be enforced; lower it or leave it out"
                    )));
                }
                check_bounds(value, depth + 1)?;
            }
            Ok(())
        }
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| check_bounds(item, depth + 1)),
        _ => Ok(()),
    }
}

pub(crate) struct Masked {
    matcher: Matcher,
    accepting: bool,
}

impl Masked {
    fn new(parser: TokenParser) -> Result<Self, GrammarError> {
        let mut matcher = Matcher::new(Ok(parser));
        let accepting = matcher
            .is_accepting()
            .map_err(|error| refused(&error.to_string()))?;
        Ok(Self { matcher, accepting })
    }
}

impl Constraint for Masked {
    fn mask(&mut self, out: &mut TokenMask) -> Result<(), EngineError> {
        let allowed = self
            .matcher
            .compute_mask_or_eos()
            .map_err(|error| failed(&error.to_string()))?;
        let words = out.words_mut();
        let given = allowed.as_slice();
        let shared = words.len().min(given.len());
        words[..shared].copy_from_slice(&given[..shared]);
        words[shared..].fill(0);
        Ok(())
    }

    fn accept(&mut self, token: Token) -> Result<(), EngineError> {
        let token = TokenId::try_from(token).map_err(|_| failed("a token id is negative"))?;
        self.matcher
            .consume_token(token)
            .map_err(|error| failed(&error.to_string()))?;
        self.accepting = self.matcher.is_stopped()
            || self
                .matcher
                .is_accepting()
                .map_err(|error| failed(&error.to_string()))?;
        Ok(())
    }

    fn may_stop(&self) -> bool {
        self.accepting
    }
}

fn failed(message: &str) -> EngineError {
    EngineError::Constraint(
        message
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(400)
            .collect(),
    )
}

/// The bytes of all tokens as llguidance wants them, and the tokenizer. Holds the weights' file but not the engine:
/// a constraint lives on the engine's thread, which must not be the one that ends the engine.
struct Tokens {
    words: Vec<Vec<u8>>,
    eos: Vec<TokenId>,
    tokenizer: Arc<sys::Model>,
}

impl Tokens {
    fn read(model: &LoadedModel, n_vocab: usize) -> Self {
        let mut words = Vec::with_capacity(n_vocab);
        let mut eos = Vec::new();
        for (token, id) in (0..).zip(0..).take(n_vocab) {
            let token: Token = token;
            let id: TokenId = id;
            let bytes = model.token_bytes(token);
            let steers = model.is_control(token) || model.is_end_of_generation(token);
            let mut word = Vec::with_capacity(bytes.len() + 1);
            if steers {
                word.push(TokTrie::SPECIAL_TOKEN_MARKER);
                word.extend_from_slice(bytes);
            } else if bytes.first() != Some(&TokTrie::SPECIAL_TOKEN_MARKER) {
                // The byte 0xFF is in no UTF-8 text, and here it means a special token.
                word.extend_from_slice(bytes);
            }
            words.push(word);
            if model.is_end_of_generation(token) {
                eos.push(id);
            }
        }
        Self {
            words,
            eos,
            tokenizer: model.tokenizer(),
        }
    }
}

struct Vocabulary {
    trie: TokTrie,
    tokenizer: Arc<sys::Model>,
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| {
            self.tokenizer
                .tokenize(text, false, false)
                .map(|tokens| {
                    tokens
                        .into_iter()
                        .filter_map(|token| TokenId::try_from(token).ok())
                        .collect()
                })
                .unwrap_or_else(|_| self.trie.greedy_tokenize(text.as_bytes()))
        })
    }
}

fn factory(tokens: Tokens) -> Result<ParserFactory, GrammarError> {
    let Some(first) = tokens.eos.first().copied() else {
        return Err(GrammarError::Vocabulary(
            "no token ends an answer".to_owned(),
        ));
    };
    let n_vocab = u32::try_from(tokens.words.len())
        .map_err(|_| GrammarError::Vocabulary("its vocabulary is too large".to_owned()))?;
    let trie =
        TokTrie::from(&TokRxInfo::new(n_vocab, first), &tokens.words).with_eos_tokens(&tokens.eos);
    drop(tokens.words);
    let env: TokEnv = Arc::new(Vocabulary {
        trie,
        tokenizer: tokens.tokenizer,
    });
    let slices = llguidance::earley::SlicedBiasComputer::general_slices();
    let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices)
        .map_err(|error| GrammarError::Vocabulary(error.to_string()))?;
    factory.quiet();
    let limits = factory.limits_mut();
    limits.max_lexer_states = LEXER_STATES_MAX;
    limits.max_grammar_size = GRAMMAR_SYMBOLS_MAX;
    limits.verbose_errors = false;
    Ok(factory)
}
