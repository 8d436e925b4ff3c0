//! The command line: every command and flag with its help.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A generative-AI service that you run yourself.
///
/// Speaks OpenAI's API to your programs and OCI Generative AI's to your administrators: API keys that rotate,
/// policies, compartments, regions, every model behind one address.
#[derive(Debug, Parser)]
#[command(name = "honshu", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes, before or after its own.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// How to print data
    #[arg(long, global = true, value_enum)]
    pub(crate) output: Option<Format>,
    /// Where Honshu keeps its data [default: honshu in the user's data directory]
    #[arg(long, global = true, env = "HONSHU_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The server to talk to [default: the one that runs on the data directory]
    #[arg(long, global = true, env = "HONSHU_ENDPOINT", value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// The region to act in [default: the profile's]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) region: Option<String>,
    /// A profile of the configuration file [default: DEFAULT]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// A configuration file in OCI's format [default: admin/config in the data directory]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config_file: Option<PathBuf>,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For programs
    Json,
    /// For people
    Table,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// From nothing to an answer: pull a model, start, create a key and a policy, ask, stay up
    Quickstart(Quickstart),
    /// Run the server
    Serve(Serve),
    /// Make the tenancy, the root compartment and the administrator
    Init(Init),
    /// Talk to a model
    Chat(Chat),
    /// Models on this machine
    #[command(subcommand)]
    Model(ModelCommand),
    /// API keys: two secrets each, for rotation without downtime
    #[command(subcommand)]
    ApiKey(ApiKeyCommand),
    /// Policies: who may do what where
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Compartments: where things belong
    #[command(subcommand)]
    Compartment(CompartmentCommand),
    /// Print the OpenAPI document of the data plane, as a server gives it at /openapi.json
    Openapi,
    /// Print the completions of a shell
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
    /// Run the engine's self-test in this process (the server starts this as a child)
    #[command(hide = true)]
    EngineSelfTest {
        /// Test the safer code
        #[arg(long)]
        safe: bool,
    },
}

/// `honshu quickstart`.
#[derive(Debug, Args)]
pub(crate) struct Quickstart {
    /// A catalogue name, a path, a URL or hf:OWNER/REPO/FILE.gguf
    #[arg(long, default_value = "smollm2-135m-instruct")]
    pub(crate) model: String,
    /// End after the answer
    #[arg(long)]
    pub(crate) once: bool,
    /// Where to listen [default: 127.0.0.1:8080, or a free port if that is taken]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
}

/// `honshu serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where to listen [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// `honshu init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The tenancy's name
    #[arg(long, default_value = "honshu", value_name = "NAME")]
    pub(crate) tenancy_name: String,
}

/// `honshu chat`.
#[derive(Debug, Args)]
pub(crate) struct Chat {
    /// The model [default: the only one there is]
    #[arg(long, short)]
    pub(crate) model: Option<String>,
    /// A system message
    #[arg(long, short)]
    pub(crate) system: Option<String>,
    /// The compartment that is charged
    #[arg(long, default_value = "root", value_name = "NAME|OCID")]
    pub(crate) compartment: String,
    /// 0 takes the likeliest words, up to 2 is more varied
    #[arg(long)]
    pub(crate) temperature: Option<f64>,
    /// The most tokens of an answer
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u32>,
    /// What to say; without it, a conversation from standard input
    pub(crate) message: Vec<String>,
}

/// `honshu model …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// List the models that can be pulled and those that were
    List {
        /// Only those on this machine
        #[arg(long)]
        pulled: bool,
        /// Only those of the catalogue
        #[arg(long, conflicts_with = "pulled")]
        available: bool,
    },
    /// Pull a model, and verify it
    Pull {
        /// A catalogue name, a path, a URL or hf:OWNER/REPO/FILE.gguf
        model: String,
    },
    /// Remove a pulled model
    Remove {
        /// Its name or id
        model: String,
    },
    /// Show a model
    Show {
        /// Its name or id
        model: String,
    },
}

/// The key that a command is about.
#[derive(Debug, Args)]
pub(crate) struct KeyId {
    /// The key's OCID
    #[arg(long, value_name = "OCID")]
    pub(crate) api_key_id: String,
}

/// `honshu api-key …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ApiKeyCommand {
    /// Create a key with two secrets, which are shown once
    Create {
        /// The compartment it belongs to
        #[arg(long, value_name = "NAME|OCID")]
        compartment: String,
        /// Its name
        #[arg(long, value_name = "NAME")]
        display_name: String,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
        /// The first secret's name
        #[arg(long, value_name = "NAME")]
        key_one_name: String,
        /// When the first secret ends [default: in three months]
        #[arg(long, value_name = "RFC3339")]
        key_one_expires: Option<String>,
        /// The second secret's name
        #[arg(long, value_name = "NAME")]
        key_two_name: Option<String>,
        /// When the second secret ends [default: in three months]
        #[arg(long, value_name = "RFC3339")]
        key_two_expires: Option<String>,
    },
    /// List the keys of a compartment
    List {
        /// The compartment
        #[arg(long, default_value = "root", value_name = "NAME|OCID")]
        compartment: String,
    },
    /// Show a key without its secrets
    Get(KeyId),
    /// Change a key's name or description
    Update {
        /// Which key
        #[command(flatten)]
        key: KeyId,
        /// The new name
        #[arg(long, value_name = "NAME")]
        display_name: Option<String>,
        /// The new description
        #[arg(long)]
        description: Option<String>,
    },
    /// Give one secret a new value, which is shown once; the other goes on serving
    Renew {
        /// Which key
        #[command(flatten)]
        key: KeyId,
        /// Which secret
        #[arg(long, value_name = "NAME")]
        key_name: String,
        /// When it ends [default: in three months]
        #[arg(long, value_name = "RFC3339")]
        expires: Option<String>,
    },
    /// Take a secret out of use (INACTIVE), back (ACTIVE), or end it for good (REVOKED)
    SetState {
        /// Which key
        #[command(flatten)]
        key: KeyId,
        /// Which secret
        #[arg(long, value_name = "NAME")]
        key_name: String,
        /// The new state
        #[arg(long, value_name = "ACTIVE|INACTIVE|REVOKED", ignore_case = true,
              value_parser = ["ACTIVE", "INACTIVE", "REVOKED"])]
        state: String,
    },
    /// Move a key to another compartment
    ChangeCompartment {
        /// Which key
        #[command(flatten)]
        key: KeyId,
        /// Where to
        #[arg(long, value_name = "NAME|OCID")]
        compartment: String,
    },
    /// Delete a key with both secrets
    Delete(KeyId),
}

/// `honshu policy …`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Create a policy
    Create {
        /// The compartment it hangs on
        #[arg(long, value_name = "NAME|OCID")]
        compartment: String,
        /// Its name
        #[arg(long, value_name = "NAME")]
        name: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        /// A statement; several times for several
        #[arg(long = "statement", required = true, value_name = "STATEMENT")]
        statements: Vec<String>,
    },
    /// List the policies of a compartment
    List {
        /// The compartment
        #[arg(long, default_value = "root", value_name = "NAME|OCID")]
        compartment: String,
    },
    /// Show a policy
    Get {
        /// The policy's OCID
        #[arg(long, value_name = "OCID")]
        policy_id: String,
    },
    /// Change a policy's statements or description
    Update {
        /// The policy's OCID
        #[arg(long, value_name = "OCID")]
        policy_id: String,
        /// The new description
        #[arg(long)]
        description: Option<String>,
        /// The statements that replace the old ones
        #[arg(long = "statement", value_name = "STATEMENT")]
        statements: Vec<String>,
    },
    /// Delete a policy
    Delete {
        /// The policy's OCID
        #[arg(long, value_name = "OCID")]
        policy_id: String,
    },
    /// Show whether deny statements count, or turn them on or off
    Settings {
        /// Turn deny statements on or off
        #[arg(long, value_name = "on|off", value_parser = ["on", "off"])]
        deny: Option<String>,
    },
    /// Check statements without a server: errors with their column and the fix
    Check {
        /// A statement; several times for several
        #[arg(long = "statement", value_name = "STATEMENT")]
        statements: Vec<String>,
        /// Statements, each in quotes
        #[arg(value_name = "STATEMENT")]
        bare: Vec<String>,
        /// A file with one statement a line; - for standard input
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

/// `honshu compartment …`.
#[derive(Debug, Subcommand)]
pub(crate) enum CompartmentCommand {
    /// Create a compartment
    Create {
        /// Its name
        #[arg(long, value_name = "NAME")]
        name: String,
        /// The compartment above it
        #[arg(long, default_value = "root", value_name = "NAME|OCID")]
        parent: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List all compartments
    List,
    /// Show a compartment
    Get {
        /// Which
        #[arg(long, value_name = "NAME|OCID")]
        compartment: String,
    },
    /// Delete an empty compartment
    Delete {
        /// Which
        #[arg(long, value_name = "NAME|OCID")]
        compartment: String,
    },
}
