//! `honshu model`: works without a server, on the models directory, beside whatever runs.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use honshu_models::{
    Catalogue, CatalogueModel, InstalledModel, ModelError, ModelSpec, ModelStore, Phase, Progress,
    PullEvent, PullOptions,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::args::{Global, ModelCommand};
use crate::commands::client_runtime;
use crate::fail::{Failure, Result};
use crate::lang::Lang;
use crate::output::{Output, field};

/// A model that is there to be served.
pub(crate) struct Pulled {
    /// Its id.
    pub(crate) id: String,
    /// Whether it speaks Japanese.
    pub(crate) japanese: bool,
}

/// Runs a command.
pub(crate) fn run(global: &Global, command: ModelCommand, output: &Output) -> Result<ExitCode> {
    let data_dir = global.data_dir()?;
    match command {
        ModelCommand::List { pulled, available } => {
            let store = open(&data_dir)?;
            list(&store, pulled, available, output)?;
        }
        ModelCommand::Pull { model } => {
            let installed = client_runtime()?.block_on(fetch(&data_dir, &model, output))?;
            show(&of_installed(&installed), output)?;
        }
        ModelCommand::Remove { model } => {
            let removed = open(&data_dir)?.remove(&model)?;
            let freed = size(removed.bytes_freed);
            output.done(
                &json!({"name": model, "deleted": true, "bytesFreed": removed.bytes_freed}),
                &format!("Removed {model}; {freed} are free again."),
                &format!("{model} を削除しました。{freed} が空きました。"),
            )?;
        }
        ModelCommand::Show { model } => {
            let value = match open(&data_dir)?.find(&model) {
                Ok(installed) => of_installed(&installed),
                Err(missing) => match Catalogue::embedded().find(&model) {
                    Some(entry) => of_catalogue(entry),
                    None => return Err(missing.into()),
                },
            };
            show(&value, output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Pulls a model unless it is there, for quickstart.
pub(crate) async fn pull(data_dir: &Path, model: &str, output: &Output) -> Result<Pulled> {
    let installed = fetch(data_dir, model, output).await?;
    let languages = &installed.manifest.languages;
    Ok(Pulled {
        id: installed.manifest.id.clone(),
        // A model that does not say which languages it speaks is asked in the article's.
        japanese: languages.is_empty() || languages.iter().any(|tag| tag.starts_with("ja")),
    })
}

fn open(data_dir: &Path) -> Result<ModelStore> {
    Ok(ModelStore::open(data_dir.join("models"))?)
}

async fn fetch(data_dir: &Path, model: &str, output: &Output) -> Result<InstalledModel> {
    let spec = ModelSpec::parse(model, Catalogue::embedded())
        .map_err(|error| Failure::usage(error.to_string()))?;
    let store = open(data_dir)?;
    let progress = Bar::new(*output);
    let result = store
        .pull(&spec, &PullOptions::from_env()?, &progress)
        .await;
    progress.clear();
    let pulled = result.map_err(pull_failure)?;
    if pulled.was_present {
        output.say(output.lang.pick(
            format!("{} is there already.", pulled.model.manifest.id),
            format!("{} は取得済みです。", pulled.model.manifest.id),
        ));
    }
    Ok(pulled.model)
}

/// A failure with the next step where the error does not say it itself.
fn pull_failure(error: ModelError) -> Failure {
    let hint = match &error {
        ModelError::Gguf { .. } => (
            "nothing was installed; fetch the file again, or choose one in the GGUF format",
            "何もインストールされていません。ファイルを取り直すか、GGUF形式のものを選んでください",
        ),
        ModelError::BadAnswer { .. }
        | ModelError::SizeMismatch { .. }
        | ModelError::DigestMismatch { .. }
        | ModelError::Package { .. } => (
            "run the same command again, or choose another source",
            "同じコマンドをもう一度実行するか、別の取得元を選んでください",
        ),
        ModelError::Io { .. } => (
            "nothing was installed; see to it that the path is right and the data directory can be written",
            "何もインストールされていません。パスが正しいこと、データ・ディレクトリに書き込めることを確認してください",
        ),
        _ => return error.into(),
    };
    Failure::from(error).hint(hint)
}

/// Draws a bar where a person watches, and a line now and then where nobody does.
struct Bar {
    output: Output,
    bar: ProgressBar,
    drawn: Mutex<Option<(Phase, u64)>>,
}

impl Bar {
    fn new(output: Output) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
        if let Ok(style) = ProgressStyle::with_template(
            "{msg} {bar:30} {percent:>3}%  {bytes} / {total_bytes}  {bytes_per_sec}  {eta}",
        ) {
            bar.set_style(style);
        }
        Self {
            output,
            bar,
            drawn: Mutex::new(None),
        }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn say(&self, text: String) {
        let output = self.output;
        self.bar.suspend(|| output.say(text));
    }

    fn phase(&self, phase: Phase) -> &'static str {
        let lang = self.output.lang;
        match phase {
            Phase::Hashing => lang.pick("verifying", "検証中"),
            Phase::Downloading => lang.pick("downloading", "ダウンロード中"),
            Phase::Unpacking => lang.pick("unpacking", "展開中"),
            Phase::Copying => lang.pick("copying", "コピー中"),
        }
    }
}

impl Progress for Bar {
    fn event(&self, event: &PullEvent) {
        let lang = self.output.lang;
        match event {
            PullEvent::Waiting => self.say(
                lang.pick(
                    "another pull is under way; waiting",
                    "ほかの取得が終わるのを待っています",
                )
                .to_owned(),
            ),
            PullEvent::Retrying { reason, after } => self.say(lang.pick(
                format!("{reason}; trying again in {} s", after.as_secs().max(1)),
                format!("{reason}。{} 秒後に再試行します", after.as_secs().max(1)),
            )),
            PullEvent::Note(note) => self.say(note.clone()),
            PullEvent::Installed { sha256, size_bytes } => {
                self.say(format!("SHA-256 {sha256}  {}", size(*size_bytes)));
            }
            PullEvent::Transfer(transfer) => {
                if Output::interactive() {
                    self.bar.set_message(self.phase(transfer.phase));
                    if let Some(total) = transfer.bytes_total {
                        self.bar.set_length(total);
                    }
                    self.bar.set_position(transfer.bytes_done);
                    return;
                }
                // In a log, a line at each tenth is enough.
                let tenth = transfer.percent().map_or(0, |percent| percent as u64 / 10);
                let mut drawn = self
                    .drawn
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                if *drawn != Some((transfer.phase, tenth)) {
                    *drawn = Some((transfer.phase, tenth));
                    let eta = transfer.eta().map(seconds).unwrap_or_default();
                    self.output.say(
                        format!(
                            "{} {}% {} {eta}",
                            self.phase(transfer.phase),
                            tenth * 10,
                            size(transfer.bytes_done)
                        )
                        .trim_end(),
                    );
                }
            }
            _ => {}
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

/// Bytes for people, in binary units.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {unit}")
    }
}

fn list(store: &ModelStore, pulled: bool, available: bool, output: &Output) -> Result<()> {
    let listing = store.list()?;
    for problem in &listing.problems {
        output.say(problem);
    }
    let mut values: Vec<Value> = Vec::new();
    if !available {
        values.extend(listing.models.iter().map(of_installed));
    }
    if !pulled {
        values.extend(
            Catalogue::embedded()
                .models()
                .iter()
                .filter(|entry| {
                    available || listing.models.iter().all(|m| m.manifest.id != entry.id)
                })
                .map(of_catalogue),
        );
    }
    let lang = output.lang;
    output.list(
        &values,
        &[
            "name",
            "pulled",
            "size",
            "memory",
            "licence",
            "languages",
            "id",
        ],
        |value| {
            vec![
                field(value, "name"),
                yes_no(lang, value["pulled"] == true),
                bytes(value, "sizeBytes"),
                bytes(value, "memoryBytes"),
                field(value, "license"),
                languages(value),
                field(value, "id"),
            ]
        },
    )
}

fn yes_no(lang: Lang, yes: bool) -> String {
    if yes {
        lang.pick("yes", "済")
    } else {
        lang.pick("no", "未")
    }
    .to_owned()
}

fn bytes(value: &Value, name: &str) -> String {
    value[name].as_u64().map(size).unwrap_or_default()
}

fn languages(value: &Value) -> String {
    value["languages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect::<Vec<_>>()
        .join(",")
}

/// Memory that a model takes with the engine's default context.
const CONTEXT_TOKENS: u64 = 8_192;

fn of_installed(model: &InstalledModel) -> Value {
    let manifest = &model.manifest;
    json!({
        "id": manifest.id,
        "name": manifest.name.as_deref().unwrap_or(&manifest.id),
        "displayName": manifest.display_name,
        "vendor": manifest.vendor,
        "pulled": true,
        "license": manifest.license,
        "languages": manifest.languages,
        "capabilities": manifest.capabilities,
        "parameters": manifest.gguf.parameters,
        "quantization": manifest.gguf.quantization,
        "architecture": manifest.gguf.architecture,
        "contextTokens": manifest.gguf.context_tokens_max,
        "sizeBytes": manifest.size_bytes,
        "memoryBytes": manifest.gguf.memory(CONTEXT_TOKENS).total_bytes(),
        "sha256": manifest.sha256.to_string(),
        "digestOrigin": manifest.digest_origin,
        "source": manifest.source,
        "pulledAt": manifest.pulled_at,
        "path": model.path,
    })
}

fn of_catalogue(entry: &CatalogueModel) -> Value {
    json!({
        "id": entry.id,
        "name": entry.name,
        "displayName": entry.display_name,
        "vendor": entry.vendor,
        "note": entry.note,
        "pulled": false,
        "license": entry.license,
        "languages": entry.languages,
        "capabilities": entry.capabilities,
        "parameters": entry.parameters,
        "contextTokens": entry.context_tokens_max,
        "sizeBytes": entry.download_bytes,
        "sizeIsExact": entry.download_bytes_exact,
        "memoryBytes": entry.memory_bytes,
        "sha256": entry.sha256.as_ref().map(ToString::to_string),
        "source": entry.source,
    })
}

fn show(value: &Value, output: &Output) -> Result<()> {
    let lang = output.lang;
    output.value(value, |rows| {
        for (label, name) in [
            ("ID", "id"),
            (lang.pick("name", "名前"), "displayName"),
            (lang.pick("note", "説明"), "note"),
            (lang.pick("licence", "ライセンス"), "license"),
            (lang.pick("parameters", "パラメータ数"), "parameters"),
            (lang.pick("quantisation", "量子化"), "quantization"),
            (lang.pick("context", "コンテキスト"), "contextTokens"),
            ("SHA-256", "sha256"),
            (
                lang.pick("digest from", "ダイジェストの出所"),
                "digestOrigin",
            ),
            (lang.pick("file", "ファイル"), "path"),
        ] {
            let text = field(value, name);
            if !text.is_empty() {
                rows.push((label.to_owned(), text));
            }
        }
        rows.push((lang.pick("languages", "言語").to_owned(), languages(value)));
        rows.push((
            lang.pick("size", "サイズ").to_owned(),
            bytes(value, "sizeBytes"),
        ));
        rows.push((
            lang.pick("memory", "メモリ").to_owned(),
            bytes(value, "memoryBytes"),
        ));
    })
}
