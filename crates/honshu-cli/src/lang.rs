//! The two languages that the command line speaks, chosen by the environment.

/// A language of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lang {
    /// English.
    En,
    /// Japanese.
    Ja,
}

impl Lang {
    /// By `LC_ALL`, `LC_MESSAGES` or `LANG`, the first that is set.
    pub(crate) fn from_env() -> Self {
        let value = ["LC_ALL", "LC_MESSAGES", "LANG"]
            .iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|value| !value.is_empty());
        Self::of(value.as_deref().unwrap_or_default())
    }

    fn of(locale: &str) -> Self {
        if locale == "ja" || locale.starts_with("ja_") || locale.starts_with("ja-") {
            Self::Ja
        } else {
            Self::En
        }
    }

    /// The text of this language.
    pub(crate) fn pick<T>(self, en: T, ja: T) -> T {
        match self {
            Self::En => en,
            Self::Ja => ja,
        }
    }
}

/// A text in every language that the command line speaks. What other programs said stands in it as they said it.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    en: Box<str>,
    ja: Box<str>,
}

impl Text {
    /// The text of a language.
    pub(crate) fn of(&self, lang: Lang) -> &str {
        lang.pick(&self.en, &self.ja)
    }
}

/// English and Japanese.
impl<E: Into<String>, J: Into<String>> From<(E, J)> for Text {
    fn from((en, ja): (E, J)) -> Self {
        Self {
            en: en.into().into(),
            ja: ja.into().into(),
        }
    }
}

/// Words of somebody else, the same in both languages.
impl From<String> for Text {
    fn from(text: String) -> Self {
        Self {
            en: text.as_str().into(),
            ja: text.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lang;

    #[test]
    fn japanese_only_for_japanese_locales() {
        for (locale, lang) in [
            ("ja_JP.UTF-8", Lang::Ja),
            ("ja", Lang::Ja),
            ("C.UTF-8", Lang::En),
            ("en_US.UTF-8", Lang::En),
            ("jav", Lang::En),
            ("", Lang::En),
        ] {
            assert_eq!(Lang::of(locale), lang, "{locale}");
        }
    }
}
