//! The configured upstreams as backends, and their credentials, which are read again while the server runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use honshu_domain::Backend;
use honshu_egress::{AddressRules, Client, ClientOptions};
use honshu_provider::{Credential, OpenAiOptions, OpenAiProvider, ScriptedProvider};

use crate::config::{Config, CredentialSource, ProviderConfig, ProviderKind};
use crate::error::StartError;

/// How often credentials are read again.
const CREDENTIAL_INTERVAL: Duration = Duration::from_secs(30);

/// Upstreams by name.
#[derive(Default)]
pub(crate) struct Providers {
    pub(crate) backends: HashMap<String, Arc<dyn Backend>>,
    credentials: Vec<(String, CredentialSource, Credential)>,
}

/// Builds every upstream.
pub(crate) fn build(config: &Config) -> Result<Providers, StartError> {
    let mut providers = Providers::default();
    for provider in &config.providers {
        let backend = backend(config, provider, &mut providers)?;
        providers.backends.insert(provider.name.clone(), backend);
    }
    Ok(providers)
}

fn backend(
    config: &Config,
    provider: &ProviderConfig,
    providers: &mut Providers,
) -> Result<Arc<dyn Backend>, StartError> {
    let fail = |reason: String| StartError::Provider {
        provider: provider.name.clone(),
        reason,
    };
    match &provider.kind {
        ProviderKind::Scripted => Ok(Arc::new(ScriptedProvider::new(&provider.name))),
        ProviderKind::OpenAi {
            base_url,
            credential,
            chat,
            responses,
        } => {
            let ours = Credential::none();
            if let Some(source) = credential {
                read(source)
                    .and_then(|secret| ours.set(&secret).map_err(str::to_owned))
                    .map_err(|reason| StartError::Credential {
                        provider: provider.name.clone(),
                        reason,
                    })?;
                providers
                    .credentials
                    .push((provider.name.clone(), source.clone(), ours.clone()));
            }
            // The operator wrote this address down, so it is allowed wherever it is; nothing else is.
            let allow = AddressRules::public_only()
                .allow_url(base_url)
                .map_err(|error| fail(error.to_string()))?;
            let mut options = ClientOptions {
                allow,
                ..ClientOptions::default()
            };
            if let Some(seconds) = config.limits.connect_timeout_seconds {
                options.connect_timeout = Duration::from_secs(seconds);
            }
            let provider = OpenAiProvider::new(
                OpenAiOptions {
                    name: provider.name.clone(),
                    base_url: base_url.clone(),
                    credential: ours,
                    chat: *chat,
                    responses: *responses,
                },
                Client::new(options),
            )
            .map_err(fail)?;
            Ok(Arc::new(provider))
        }
    }
}

fn read(source: &CredentialSource) -> Result<String, String> {
    match source {
        CredentialSource::Env(name) => {
            std::env::var(name).map_err(|_| format!("the variable {name} is not set"))
        }
        CredentialSource::File(path) => std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display())),
    }
}

impl Providers {
    /// Reads credentials again for ever. What cannot be read leaves the last good one in place.
    pub(crate) async fn follow_credentials(
        credentials: Vec<(String, CredentialSource, Credential)>,
    ) {
        loop {
            tokio::time::sleep(CREDENTIAL_INTERVAL).await;
            for (provider, source, credential) in &credentials {
                let result =
                    read(source).and_then(|secret| credential.set(&secret).map_err(str::to_owned));
                if let Err(reason) = result {
                    tracing::warn!(
                        provider,
                        reason,
                        "the credential cannot be read again; the last one stays"
                    );
                }
            }
        }
    }

    pub(crate) fn take_credentials(&mut self) -> Vec<(String, CredentialSource, Credential)> {
        std::mem::take(&mut self.credentials)
    }
}
