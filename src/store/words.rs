//! The fixed words that the tables hold: states, kinds, origins.

/// Why a text is none of a set of words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is none of {allowed}")]
pub struct UnknownWord {
    word: String,
    allowed: &'static str,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// The word, as stored and shown.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord {
                        word: word.to_owned(),
                        allowed: concat!($("`", $word, "` "),+),
                    }),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

words!(
    /// Where a generation stands. The first two are open: their hold has not ended.
    GenerationState {
        /// Recorded; not yet known to run.
        Queued = "queued",
        /// The provider works on it.
        Running = "running",
        /// At least one image was delivered.
        Succeeded = "succeeded",
        /// Refused or broken; free.
        Failed = "failed",
        /// Cancelled before it was done; free.
        Cancelled = "cancelled",
        /// Nobody knows what became of it, or it came too late; free.
        Expired = "expired",
    }
);

impl GenerationState {
    /// Whether its hold has not ended.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }

    /// The final state that this is, if it is one.
    #[must_use]
    pub const fn final_state(self) -> Option<FinalState> {
        match self {
            Self::Queued | Self::Running => None,
            Self::Succeeded => Some(FinalState::Succeeded),
            Self::Failed => Some(FinalState::Failed),
            Self::Cancelled => Some(FinalState::Cancelled),
            Self::Expired => Some(FinalState::Expired),
        }
    }
}

words!(
    /// How a generation ended.
    FinalState {
        /// At least one image was delivered; the only state that may have a price.
        Succeeded = "succeeded",
        /// Refused or broken.
        Failed = "failed",
        /// Cancelled before it was done.
        Cancelled = "cancelled",
        /// Nobody knows what became of it, or it came too late.
        Expired = "expired",
    }
);

impl From<FinalState> for GenerationState {
    fn from(state: FinalState) -> Self {
        match state {
            FinalState::Succeeded => Self::Succeeded,
            FinalState::Failed => Self::Failed,
            FinalState::Cancelled => Self::Cancelled,
            FinalState::Expired => Self::Expired,
        }
    }
}

words!(
    /// Where a generation's cost comes from.
    CostSource {
        /// The provider named the billable units.
        Billed = "billed",
        /// Estimated from the catalogue's price.
        Computed = "computed",
    }
);

words!(
    /// How a submit to a provider ended.
    AttemptOutcome {
        /// It delivered.
        Succeeded = "succeeded",
        /// It was refused or broke.
        Failed = "failed",
        /// It was cancelled.
        Cancelled = "cancelled",
        /// It was given up.
        Expired = "expired",
        /// A later attempt took its place.
        Replaced = "replaced",
    }
);

words!(
    /// What moves money in the ledger.
    TransactionKind {
        /// The charge for what a generation delivered, and what it cost us.
        Settlement = "settlement",
        /// A charge given back, whole or in part.
        Refund = "refund",
        /// Money paid in.
        TopUp = "top_up",
        /// A mistake put right.
        Correction = "correction",
        /// A gift.
        Goodwill = "goodwill",
    }
);

words!(
    /// Whose amounts an entry changes. An entry adds to what its account shows.
    LedgerAccount {
        /// What the project may still spend; negative: what it owes.
        Project = "project",
        /// What we earned.
        Revenue = "revenue",
        /// What the images cost us.
        CostOfSales = "cost_of_sales",
        /// What we have at the provider; negative: what we owe it.
        Provider = "provider",
        /// The other side of what was paid in; negative.
        Funding = "funding",
    }
);

words!(
    /// What a key opens.
    KeyKind {
        /// The admin face; no project.
        Admin = "admin",
        /// One project's public face.
        Project = "project",
    }
);

words!(
    /// Where a key came from.
    KeyOrigin {
        /// The first start made it.
        Bootstrap = "bootstrap",
        /// A setting holds its value.
        Setting = "setting",
        /// An operator made it.
        Api = "api",
    }
);

words!(
    /// What a service account may be in its project. OpenAI's words; all open the same here.
    ServiceAccountRole {
        /// May do everything.
        Owner = "owner",
        /// Makes images.
        Member = "member",
        /// Was made without a role and a key.
        None = "none",
    }
);

words!(
    /// In whose words a customer is called.
    WebhookForm {
        /// Ours, as Standard Webhooks asks for.
        Imagegate = "imagegate",
        /// fal's, for its clients.
        Fal = "fal",
    }
);

words!(
    /// How a call to a customer stands.
    WebhookState {
        /// Waits for its generation to end, or for its next try.
        Pending = "pending",
        /// Was taken.
        Delivered = "delivered",
        /// Was given up.
        Failed = "failed",
    }
);

words!(
    /// How something was changed.
    ActorKind {
        /// Over HTTP, with a key.
        ApiKey = "api_key",
        /// By a command on the machine that has the database's address.
        Command = "command",
        /// By the gateway itself: its settings, its first start, its alerts.
        System = "system",
    }
);

words!(
    /// What the audit log tells of: OpenAI's event types, and those for which it has none: `spend_alert.…`, money, what was
    /// read, uploaded, erased.
    AuditEvent {
        /// A key was made.
        ApiKeyCreated = "api_key.created",
        /// A key's name or terms were changed.
        ApiKeyUpdated = "api_key.updated",
        /// A key was revoked.
        ApiKeyDeleted = "api_key.deleted",
        /// A project was made.
        ProjectCreated = "project.created",
        /// A project's name or terms were changed.
        ProjectUpdated = "project.updated",
        /// A project was archived.
        ProjectArchived = "project.archived",
        /// A service account was made.
        ServiceAccountCreated = "service_account.created",
        /// A service account's name or role was changed.
        ServiceAccountUpdated = "service_account.updated",
        /// A service account was deleted, and its keys with it.
        ServiceAccountDeleted = "service_account.deleted",
        /// A rate limit was set.
        RateLimitUpdated = "rate_limit.updated",
        /// A rate limit was lifted.
        RateLimitDeleted = "rate_limit.deleted",
        /// Terms of the whole organization were changed.
        OrganizationUpdated = "organization.updated",
        /// An alias of a model was made.
        ModelAliasCreated = "model_alias.created",
        /// An alias of a model was changed.
        ModelAliasUpdated = "model_alias.updated",
        /// An alias of a model was deleted.
        ModelAliasDeleted = "model_alias.deleted",
        /// A spend alert was made.
        SpendAlertCreated = "spend_alert.created",
        /// A spend alert was changed.
        SpendAlertUpdated = "spend_alert.updated",
        /// A spend alert was deleted.
        SpendAlertDeleted = "spend_alert.deleted",
        /// A spend alert's amount was reached.
        SpendAlertTriggered = "spend_alert.triggered",
        /// A top-up, a correction or a gift was booked.
        ProjectCredited = "project.credited",
        /// A charge was given back, whole or in part.
        GenerationRefunded = "generation.refunded",
        /// The content of a generation was erased: prompt, parameters, images.
        GenerationErased = "generation.content_erased",
        /// The erasure of all that a project has made was asked for.
        ProjectErased = "project.content_erased",
        /// Somebody read a kept prompt.
        PromptRead = "prompt.read",
        /// A project's webhook secret was read.
        WebhookSecretRead = "webhook_secret.read",
        /// A project's webhook secret was changed.
        WebhookSecretRotated = "webhook_secret.rotated",
        /// Rows were read in bulk, as CSV or NDJSON.
        DataExported = "data.exported",
        /// An input file was uploaded.
        FileCreated = "file.created",
        /// An uploaded file was deleted.
        FileDeleted = "file.deleted",
        /// Somebody signed in at the console.
        LoginSucceeded = "login.succeeded",
        /// Somebody tried to sign in at the console with a key that is not good.
        LoginFailed = "login.failed",
        /// Somebody signed out of the console.
        LogoutSucceeded = "logout.succeeded",
        /// A month of generations was dropped.
        GenerationsDropped = "generations.dropped",
    }
);

words!(
    /// OpenAI's words for how long content is kept.
    Retention {
        /// As the organization; for projects only.
        OrganizationDefault = "organization_default",
        /// No control: kept; for projects only.
        None = "none",
        /// Not kept.
        ZeroDataRetention = "zero_data_retention",
        /// Kept, though not for the monitoring of abuse.
        ModifiedAbuseMonitoring = "modified_abuse_monitoring",
        /// Not kept.
        EnhancedZeroDataRetention = "enhanced_zero_data_retention",
        /// Kept, though not for the monitoring of abuse.
        EnhancedModifiedAbuseMonitoring = "enhanced_modified_abuse_monitoring",
    }
);
