//! Whose name a command acts in, and which server it talks to.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use honshu_signature::PrivateKey;
use serde::Deserialize;

use crate::args::Global;
use crate::fail::{Failure, Result};

/// The largest profile, endpoint or key file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A profile of an OCI configuration file, with its key.
pub(crate) struct Profile {
    /// The tenancy's OCID: also the root compartment's.
    pub(crate) tenancy: String,
    /// `tenancy/user/fingerprint`.
    pub(crate) key_id: String,
    /// The region's name.
    pub(crate) region: String,
    /// The signing key.
    pub(crate) key: PrivateKey,
}

impl Global {
    /// The data directory: the flag or `HONSHU_DATA_DIR`, else `honshu` in the user's data directory.
    pub(crate) fn data_dir(&self) -> Result<PathBuf> {
        if let Some(dir) = &self.data_dir {
            return Ok(dir.clone());
        }
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(base) = set("XDG_DATA_HOME") {
            return Ok(PathBuf::from(base).join("honshu"));
        }
        set("HOME")
            .map(|home| PathBuf::from(home).join(".local/share/honshu"))
            .ok_or_else(|| {
                Failure::config((
                    "there is no home directory to keep data in",
                    "データを置くホーム・ディレクトリがありません",
                ))
                .hint(("set HONSHU_DATA_DIR", "HONSHU_DATA_DIR を設定してください"))
            })
    }

    /// The profile that commands act in.
    pub(crate) fn load_profile(&self) -> Result<Profile> {
        let path = match &self.config_file {
            Some(path) => path.clone(),
            None => self.data_dir()?.join("admin").join("config"),
        };
        let text = read_small(&path).map_err(|error| {
            Failure::config((
                format!("cannot read the profile {}: {error}", path.display()),
                format!("プロファイル {} を読めません: {error}", path.display()),
            ))
            .hint((
                "run `honshu init` first, or point HONSHU_DATA_DIR or --config-file at an existing one",
                "先に `honshu init` を実行するか、HONSHU_DATA_DIR または --config-file で既存のものを指定してください",
            ))
        })?;
        let section = self.profile.as_deref().unwrap_or("DEFAULT");
        let values = ini_section(&text, section).ok_or_else(|| {
            Failure::config((
                format!("{} has no profile [{section}]", path.display()),
                format!("{} にプロファイル [{section}] がありません", path.display()),
            ))
            .hint((
                "name one that it has with --profile, or leave --profile out",
                "ファイルにあるものを --profile で指定するか、--profile を省いてください",
            ))
        })?;
        let need = |name: &str| {
            values.get(name).cloned().ok_or_else(|| {
                Failure::config((
                    format!("the profile [{section}] in {} has no `{name}`", path.display()),
                    format!("{} のプロファイル [{section}] に `{name}` がありません", path.display()),
                ))
                .hint((
                    "add it, or use the administrator's own profile, admin/config in the data directory",
                    "追加するか、管理者のプロファイル (データ・ディレクトリの admin/config) を使ってください",
                ))
            })
        };
        let key_file = expand_home(&need("key_file")?);
        let pem = read_small(&key_file).map_err(|error| {
            Failure::config((
                format!(
                    "cannot read the signing key {}: {error}",
                    key_file.display()
                ),
                format!("署名キー {} を読めません: {error}", key_file.display()),
            ))
            .hint(KEY_FILE)
        })?;
        let key = PrivateKey::from_pem(&pem).map_err(|error| {
            Failure::config((
                format!("cannot use the signing key {}: {error}", key_file.display()),
                format!("署名キー {} は使えません: {error}", key_file.display()),
            ))
            .hint(KEY_FILE)
        })?;
        let (tenancy, user, fingerprint) = (need("tenancy")?, need("user")?, need("fingerprint")?);
        Ok(Profile {
            key_id: format!("{tenancy}/{user}/{fingerprint}"),
            region: need("region")?,
            tenancy,
            key,
        })
    }

    /// The URL of the server that serves `region`: the flag, else what the running server wrote down.
    pub(crate) fn endpoint(&self, profile_region: &str) -> Result<String> {
        if let Some(endpoint) = &self.endpoint {
            return Ok(endpoint.trim_end_matches('/').to_owned());
        }
        let path = self.data_dir()?.join("run").join("endpoints.json");
        let text = read_small(&path).map_err(|_| {
            Failure::new((
                "no server runs on this data directory",
                "このデータ・ディレクトリで動いているサーバーがありません",
            ))
            .hint((
                "start one with `honshu serve`, or name one with --endpoint http://HOST:PORT",
                "`honshu serve` で起動するか、--endpoint http://HOST:PORT で指定してください",
            ))
        })?;
        let endpoints: Endpoints = serde_json::from_str(&text).map_err(|error| {
            Failure::new((
                format!("{} is not valid: {error}", path.display()),
                format!("{} の内容が正しくありません: {error}", path.display()),
            ))
            .hint((
                "restart the server, which writes it anew",
                "サーバーを再起動すると書き直されます",
            ))
        })?;
        let region = self.region.as_deref();
        let found = match region {
            Some(region) => endpoints.find(region),
            None => endpoints.find(profile_region).or_else(|| endpoints.first()),
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = endpoints
                .regions
                .iter()
                .map(|r| r.region.as_str())
                .collect();
            let (wanted, names) = (region.unwrap_or(profile_region), names.join(", "));
            Failure::usage((
                format!("the server has no region `{wanted}`"),
                format!("サーバーにリージョン `{wanted}` がありません"),
            ))
            .hint((format!("it has {names}"), format!("あるのは {names} です")))
        })
    }
}

/// What a profile's `key_file` is.
const KEY_FILE: (&str, &str) = (
    "`key_file` of the profile names the PEM file of an RSA key without a password",
    "プロファイルの `key_file` には、パスワードのない RSA キーの PEM ファイルを指定します",
);

/// `run/endpoints.json`: which region answers where.
#[derive(Deserialize)]
struct Endpoints {
    regions: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    region: String,
    url: String,
}

impl Endpoints {
    fn find(&self, region: &str) -> Option<String> {
        self.regions
            .iter()
            .find(|endpoint| endpoint.region == region)
            .map(|endpoint| endpoint.url.clone())
    }

    fn first(&self) -> Option<String> {
        self.regions.first().map(|endpoint| endpoint.url.clone())
    }
}

fn read_small(path: &Path) -> std::io::Result<String> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!(
            "larger than {FILE_BYTES_MAX} bytes"
        )));
    }
    std::fs::read_to_string(path)
}

fn expand_home(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(text),
    }
}

/// The values of a section of an INI file, over those of `[DEFAULT]`, as Python's configparser reads it.
fn ini_section(text: &str, wanted: &str) -> Option<HashMap<String, String>> {
    let mut sections: HashMap<String, HashMap<String, String>> = HashMap::new();
    let mut current = String::new();
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line.starts_with(';') {
            continue;
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            current = name.trim().to_owned();
            sections.entry(current.clone()).or_default();
        } else if let Some((name, value)) = line.split_once('=') {
            sections
                .entry(current.clone())
                .or_default()
                .insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let own = sections.get(wanted)?.clone();
    let mut values = sections.get("DEFAULT").cloned().unwrap_or_default();
    values.extend(own);
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_inherits_from_default() {
        let text = "[DEFAULT]\nuser = a\nregion=r\n# no\n[OTHER]\nuser=b\n";
        let other = ini_section(text, "OTHER").unwrap();
        assert_eq!(
            (other["user"].as_str(), other["region"].as_str()),
            ("b", "r")
        );
        assert!(ini_section(text, "MISSING").is_none());
    }
}
