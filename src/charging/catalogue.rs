//! Countries and licences (being written).

use std::fmt;

use serde::{Deserialize, Serialize};

/// ISO 3166-1 alpha-2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CountryCode([u8; 2]);

impl CountryCode {
    /// Reads a code.
    pub fn parse(text: &str) -> Option<CountryCode> {
        let bytes: [u8; 2] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(u8::is_ascii_uppercase).then_some(CountryCode(bytes))
    }

    /// The two letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("??")
    }
}

impl TryFrom<String> for CountryCode {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        CountryCode::parse(&text).ok_or(text)
    }
}

impl From<CountryCode> for String {
    fn from(code: CountryCode) -> String {
        code.as_str().to_owned()
    }
}

impl fmt::Display for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! licences {
    ($($(#[$doc:meta])* $variant:ident = $code:literal,)*) => {
        /// A licence that can be assigned.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Licence { $($(#[$doc])* #[serde(rename = $code)] $variant,)* }

        impl Licence {
            /// Every licence.
            pub const ALL: &[Licence] = &[$(Licence::$variant,)*];

            /// The code in the organisation file.
            pub fn code(self) -> &'static str {
                match self { $(Licence::$variant => $code,)* }
            }

            /// Reads a code.
            pub fn parse(code: &str) -> Option<Licence> {
                Licence::ALL.iter().copied().find(|licence| licence.code() == code)
            }
        }
    };
}

licences! {
    /// Phone System.
    PhoneSystem = "MCOEV",
    /// Domestic.
    Domestic = "MCOPSTN1",
    /// Domestic and International.
    DomesticAndInternational = "MCOPSTN2",
    /// Domestic 120.
    Domestic120 = "MCOPSTN5",
    /// Domestic 240.
    Domestic240 = "MCOPSTN6",
    /// Domestic 120 per user.
    Domestic120PerUser = "MCOPSTN8",
    /// International only.
    International = "MCOPSTN9",
    /// Pay-as-you-go, zone 1.
    PayAsYouGo1 = "MCOPSTN_PAYG_1",
    /// Pay-as-you-go, zone 2.
    PayAsYouGo2 = "MCOPSTN_PAYG_2",
    /// Communications Credits.
    CommunicationsCredits = "MCOPSTNPP",
    /// Audio Conferencing.
    AudioConferencing = "MCOMEETADD",
    /// Extended dial-out.
    ExtendedDialOut = "MCOMEETADD_DIALOUT_US",
    /// Pay-per-minute conferencing.
    PayPerMinuteConferencing = "MCOMEETACPEA",
    /// Resource account.
    ResourceAccount = "MCOEV_VIRTUALUSER",
}
