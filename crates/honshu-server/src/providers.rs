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
            let options = ClientOptions {
                allow,
                connect_timeout: config.timeouts().connect_timeout,
                ..ClientOptions::default()
            };
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
    /// Begins to read the credentials again and again, until what comes back is dropped. What cannot be read leaves
    /// the last good one in place.
    #[expect(clippy::disallowed_methods, reason = "it ends with the follower")]
    pub(crate) fn follow_credentials(&mut self) -> Follower {
        let credentials = std::mem::take(&mut self.credentials);
        Follower(tokio::spawn(async move {
            loop {
                tokio::time::sleep(CREDENTIAL_INTERVAL).await;
                for (provider, source, credential) in &credentials {
                    let result = read(source)
                        .and_then(|secret| credential.set(&secret).map_err(str::to_owned));
                    if let Err(reason) = result {
                        tracing::warn!(
                            provider,
                            reason,
                            "the credential cannot be read again; the last one stays"
                        );
                    }
                }
            }
        }))
    }
}

/// A task that ends with whoever holds this: a configuration that was replaced reads no credentials any more.
pub(crate) struct Follower(tokio::task::JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("test.toml"), None).unwrap()
    }

    #[tokio::test]
    async fn credentials_are_followed_until_their_configuration_is_gone() {
        let follower = Providers::default().follow_credentials();
        let task = follower.0.abort_handle();
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        drop(follower);
        while !task.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn what_a_provider_lacks_is_said_without_its_secret() {
        let variable = "[[provider]]\nname = \"a\"\nkind = \"openai\"\nbase_url = \"https://a.test/v1\"\ncredential = \"env:HONSHU_TEST_NOT_SET\"";
        let error = build(&config(variable)).err().unwrap().to_string();
        assert_eq!(
            error,
            "provider `a`: the variable HONSHU_TEST_NOT_SET is not set"
        );
        let url = "[[provider]]\nname = \"a\"\nkind = \"openai\"\nbase_url = \"https://user:secret@a.test/v1\"";
        let error = build(&config(url)).err().unwrap().to_string();
        assert!(
            error.contains("user name") && !error.contains("secret"),
            "{error}"
        );
    }
}
