//! Why a server does not start: one line, the next step, and whether the surroundings are at fault.

use std::net::SocketAddr;
use std::path::PathBuf;

use honshu_api::edge::TlsError;
use honshu_control::{BootstrapError, ControlError, PepperError};
use honshu_store::{DirectoryError, OpenError};

use crate::config::ConfigError;

/// The next step, in English and in Japanese.
pub(crate) type Hint = (&'static str, &'static str);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used: missing rights, or another process has it.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The pepper cannot be read.
    #[error(transparent)]
    Pepper(#[from] PepperError),
    /// The first start failed.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The control plane cannot start.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The stored responses cannot be read.
    #[error("cannot take up the background responses of the last start: {0}")]
    Responses(String),
    /// Certificates cannot be used.
    #[error("cannot use the certificates: {0}")]
    Tls(#[from] TlsError),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        reason: String,
    },
    /// Something other than loopback before anybody ran `init`.
    #[error("{address} is not loopback, and this data directory was never initialised")]
    NotInitialised {
        /// The address.
        address: SocketAddr,
    },
    /// A provider's credential cannot be read.
    #[error("provider `{provider}`: {reason}")]
    Credential {
        /// The provider.
        provider: String,
        /// Why; never the credential.
        reason: String,
    },
    /// A provider cannot be built.
    #[error("provider `{provider}`: {reason}")]
    Provider {
        /// The provider.
        provider: String,
        /// Why.
        reason: String,
    },
    /// A file of the data directory cannot be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The model store cannot be read.
    #[error("cannot read the pulled models: {0}")]
    Models(String),
    /// A model file that the configuration names cannot be served on this machine.
    #[error("model `{model}`: {reason}")]
    Model {
        /// The model's id.
        model: String,
        /// Why.
        reason: String,
        /// What to do about it.
        hint: Hint,
    },
}

impl StartError {
    /// Whether the configuration or the surroundings are at fault: exit code 78.
    pub fn is_configuration(&self) -> bool {
        !matches!(
            self,
            Self::Listen { .. } | Self::File { .. } | Self::Models(_)
        )
    }

    /// The next step, where the message does not say it.
    pub fn hint(&self) -> Option<Hint> {
        Some(match self {
            Self::Config(ConfigError::Read { .. }) => (
                "name a file that can be read with --config, or leave it out",
                "読めるファイルを --config で指定するか、省いてください",
            ),
            Self::Config(_) => (
                "correct the file and start again; nothing was changed",
                "ファイルを直して起動し直してください。何も変更されていません",
            ),
            Self::Tls(_) => (
                "`tls.certificate` and `tls.key` name PEM files of one certificate and its key",
                "`tls.certificate` と `tls.key` には、1組の証明書とキーの PEM ファイルを指定します",
            ),
            Self::Listen { .. } => (
                "stop what listens there, or choose another port with --listen",
                "そこで待ち受けているものを止めるか、--listen で別のポートを選んでください",
            ),
            Self::NotInitialised { .. } => (
                "run `honshu init` first, then `honshu serve`",
                "先に `honshu init`、次に `honshu serve` を実行してください",
            ),
            Self::Credential { .. } => (
                "set the variable or create the file that `credential` names",
                "`credential` が指す環境変数を設定するか、ファイルを作成してください",
            ),
            Self::Provider { .. } => (
                "correct the provider in the configuration and start again",
                "構成ファイルのプロバイダを直して起動し直してください",
            ),
            Self::Model { hint, .. } => *hint,
            Self::Directory(error)
            | Self::Open(OpenError::Directory(error))
            | Self::Bootstrap(BootstrapError::Open(OpenError::Directory(error))) => match error {
                DirectoryError::InUse { .. } => IN_USE,
                DirectoryError::Io { .. } => NOT_WRITABLE,
            },
            Self::Open(_) | Self::Bootstrap(_) | Self::File { .. } | Self::Models(_) => {
                NOT_WRITABLE
            }
            Self::Pepper(_) | Self::Control(_) | Self::Responses(_) => NOT_READABLE,
        })
    }
}

const IN_USE: Hint = (
    "only `serve`, `init` and `quickstart` need the directory for themselves; the other commands talk to the server \
     that runs on it",
    "ディレクトリを専有するのは `serve`、`init`、`quickstart` だけです。他のコマンドは、そこで動いているサーバーと通信します",
);

const NOT_WRITABLE: Hint = (
    "see to it that this user can write to the data directory and that the disk has room, then run the same command \
     again; nothing is half done",
    "このユーザーがデータ・ディレクトリに書き込めること、ディスクに空きがあることを確認し、同じコマンドをもう一度実行してください。\
     途中まで行われた処理はありません",
);

const NOT_READABLE: Hint = (
    "restore the data directory from one backup, its files together",
    "データ・ディレクトリのすべてのファイルを、1つのバックアップからまとめて復元してください",
);
