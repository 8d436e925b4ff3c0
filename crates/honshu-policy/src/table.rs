//! The one table of what a verb grants and what an operation needs.
//!
//! Parser, decisions, error hints and the reference pages all read this file, so that a permission
//! exists here or nowhere. It must hold data only, never a rule about who may do what.
//!
//! Names are those of the OCI IAM policy reference and of the OCI Generative AI IAM policies page.
//! Where those pages leave a gap, the entry carries a note that begins with "Honshu:".

use std::fmt;

use serde::{Serialize, Serializer};

use crate::permission_set::PermissionSet;

/// The four verbs of the policy language, each of which includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// List resources without what users put into them.
    Inspect,
    /// `inspect`, and get the resource itself.
    Read,
    /// `read`, and work with existing resources.
    Use,
    /// Everything, among it create, move and delete.
    Manage,
}

impl Verb {
    /// All verbs, weakest first.
    pub const ALL: [Verb; 4] = [Verb::Inspect, Verb::Read, Verb::Use, Verb::Manage];

    /// The word as statements write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verb::Inspect => "inspect",
            Verb::Read => "read",
            Verb::Use => "use",
            Verb::Manage => "manage",
        }
    }

    /// Finds a verb by its word, in any case.
    #[must_use]
    pub fn find(word: &str) -> Option<Verb> {
        Verb::ALL
            .into_iter()
            .find(|verb| verb.name().eq_ignore_ascii_case(word))
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

struct TypeRow {
    name: &'static str,
    family: Option<&'static str>,
    /// Permissions that each verb adds to the verb before it.
    adds: [&'static [Permission]; 4],
}

struct OperationRow {
    name: &'static str,
    needs: &'static [Permission],
    note: &'static str,
}

macro_rules! resource_types {
    ($(
        $type:literal $(in $family:literal)? {
            $(inspect: [$($inspect:ident),+],)?
            $(read: [$($read:ident),+],)?
            $(use: [$($use:ident),+],)?
            $(manage: [$($manage:ident),+],)?
        }
    )+) => {
        /// The smallest thing that can be granted, with OCI's own name.
        #[expect(non_camel_case_types, reason = "the variants are OCI's permission names, letter for letter")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum Permission {
            $(
                $($(#[doc = concat!("`", stringify!($inspect), "`, which `inspect ", $type, "` grants.")] $inspect,)+)?
                $($(#[doc = concat!("`", stringify!($read), "`, which `read ", $type, "` grants.")] $read,)+)?
                $($(#[doc = concat!("`", stringify!($use), "`, which `use ", $type, "` grants.")] $use,)+)?
                $($(#[doc = concat!("`", stringify!($manage), "`, which `manage ", $type, "` grants.")] $manage,)+)?
            )+
        }

        impl Permission {
            /// Every permission, in the order of the table.
            pub const ALL: &'static [Permission] = &[
                $(
                    $($(Permission::$inspect,)+)?
                    $($(Permission::$read,)+)?
                    $($(Permission::$use,)+)?
                    $($(Permission::$manage,)+)?
                )+
            ];

            /// OCI's name, such as `GENERATIVE_AI_CHAT`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(
                        $($(Permission::$inspect => stringify!($inspect),)+)?
                        $($(Permission::$read => stringify!($read),)+)?
                        $($(Permission::$use => stringify!($use),)+)?
                        $($(Permission::$manage => stringify!($manage),)+)?
                    )+
                }
            }
        }

        const TYPES: &[TypeRow] = &[
            $(TypeRow {
                name: $type,
                family: resource_types!(@family $($family)?),
                adds: [
                    &[$($(Permission::$inspect),+)?],
                    &[$($(Permission::$read),+)?],
                    &[$($(Permission::$use),+)?],
                    &[$($(Permission::$manage),+)?],
                ],
            },)+
        ];
    };
    (@family $family:literal) => { Some($family) };
    (@family) => { None };
}

resource_types! {
    "generative-ai-chat" in "generative-ai-family" {
        use: [GENERATIVE_AI_CHAT],
    }
    "generative-ai-text-generation" in "generative-ai-family" {
        use: [GENERATIVE_AI_TEXT_GENERATE],
    }
    "generative-ai-text-summarization" in "generative-ai-family" {
        use: [GENERATIVE_AI_TEXT_SUMMARIZE],
    }
    "generative-ai-text-embedding" in "generative-ai-family" {
        use: [GENERATIVE_AI_TEXT_EMBED],
    }
    "generative-ai-text-rerank" in "generative-ai-family" {
        use: [GENERATIVE_AI_TEXT_RERANK],
    }
    "generative-ai-apikey" in "generative-ai-family" {
        inspect: [GENERATIVE_AI_APIKEY_INSPECT],
        read: [GENERATIVE_AI_APIKEY_READ],
        use: [GENERATIVE_AI_APIKEY_UPDATE],
        manage: [
            GENERATIVE_AI_APIKEY_CREATE,
            GENERATIVE_AI_APIKEY_RENEW,
            GENERATIVE_AI_APIKEY_STATE_UPDATE,
            GENERATIVE_AI_APIKEY_MOVE,
            GENERATIVE_AI_APIKEY_DELETE
        ],
    }
    "generative-ai-model" in "generative-ai-family" {
        inspect: [GENERATIVE_AI_MODEL_INSPECT],
        read: [GENERATIVE_AI_MODEL_READ],
        use: [GENERATIVE_AI_MODEL_UPDATE],
        manage: [GENERATIVE_AI_MODEL_CREATE, GENERATIVE_AI_MODEL_MOVE, GENERATIVE_AI_MODEL_DELETE],
    }
    "generative-ai-imported-model" in "generative-ai-family" {
        inspect: [GENERATIVE_AI_IMPORTED_MODEL_INSPECT],
        read: [GENERATIVE_AI_IMPORTED_MODEL_READ],
        use: [GENERATIVE_AI_IMPORTED_MODEL_UPDATE],
        manage: [
            GENERATIVE_AI_IMPORTED_MODEL_CREATE,
            GENERATIVE_AI_IMPORTED_MODEL_MOVE,
            GENERATIVE_AI_IMPORTED_MODEL_DELETE
        ],
    }
    "generative-ai-dedicated-ai-cluster" in "generative-ai-family" {
        inspect: [GENERATIVE_AI_DEDICATED_AI_CLUSTER_INSPECT],
        read: [GENERATIVE_AI_DEDICATED_AI_CLUSTER_READ],
        use: [GENERATIVE_AI_DEDICATED_AI_CLUSTER_UPDATE],
        manage: [
            GENERATIVE_AI_DEDICATED_AI_CLUSTER_CREATE,
            GENERATIVE_AI_DEDICATED_AI_CLUSTER_MOVE,
            GENERATIVE_AI_DEDICATED_AI_CLUSTER_DELETE
        ],
    }
    "generative-ai-endpoint" in "generative-ai-family" {
        inspect: [GENERATIVE_AI_ENDPOINT_INSPECT],
        read: [GENERATIVE_AI_ENDPOINT_READ],
        use: [GENERATIVE_AI_ENDPOINT_UPDATE],
        manage: [
            GENERATIVE_AI_ENDPOINT_CREATE,
            GENERATIVE_AI_ENDPOINT_MOVE,
            GENERATIVE_AI_ENDPOINT_DELETE
        ],
    }
    "generative-ai-private-endpoint" in "generative-ai-family" {
        inspect: [GENERATIVE_AI_PRIVATE_ENDPOINT_INSPECT],
        read: [GENERATIVE_AI_PRIVATE_ENDPOINT_READ],
        use: [GENERATIVE_AI_PRIVATE_ENDPOINT_UPDATE],
        manage: [
            GENERATIVE_AI_PRIVATE_ENDPOINT_CREATE,
            GENERATIVE_AI_PRIVATE_ENDPOINT_MOVE,
            GENERATIVE_AI_PRIVATE_ENDPOINT_DELETE
        ],
    }
    "generative-ai-project" in "generative-ai-family" {
        inspect: [GENERATIVE_AI_PROJECT_INSPECT],
        read: [GENERATIVE_AI_PROJECT_READ],
        use: [GENERATIVE_AI_PROJECT_UPDATE],
        manage: [
            GENERATIVE_AI_PROJECT_CREATE,
            GENERATIVE_AI_PROJECT_MOVE,
            GENERATIVE_AI_PROJECT_DELETE
        ],
    }
    "generative-ai-semantic-store" in "generative-ai-family" {
        inspect: [GENERATIVE_AI_SEMANTIC_STORE_INSPECT],
        read: [GENERATIVE_AI_SEMANTIC_STORE_READ],
        use: [GENERATIVE_AI_SEMANTIC_STORE_UPDATE],
        manage: [
            GENERATIVE_AI_SEMANTIC_STORE_CREATE,
            GENERATIVE_AI_SEMANTIC_STORE_MOVE,
            GENERATIVE_AI_SEMANTIC_STORE_DELETE
        ],
    }
    "generative-ai-vectorstore-connector" in "generative-ai-family" {
        inspect: [GENERATIVE_AI_VECTORSTORE_CONNECTOR_INSPECT],
        read: [GENERATIVE_AI_VECTORSTORE_CONNECTOR_READ],
        use: [GENERATIVE_AI_VECTORSTORE_CONNECTOR_UPDATE],
        manage: [
            GENERATIVE_AI_VECTORSTORE_CONNECTOR_CREATE,
            GENERATIVE_AI_VECTORSTORE_CONNECTOR_MOVE,
            GENERATIVE_AI_VECTORSTORE_CONNECTOR_DELETE
        ],
    }
    "generative-ai-hosted-application" in "generative-ai-family" {
        inspect: [GENERATIVE_AI_HOSTED_APPLICATION_INSPECT],
        read: [GENERATIVE_AI_HOSTED_APPLICATION_READ],
        use: [GENERATIVE_AI_HOSTED_APPLICATION_UPDATE],
        manage: [
            GENERATIVE_AI_HOSTED_APPLICATION_CREATE,
            GENERATIVE_AI_HOSTED_APPLICATION_MOVE,
            GENERATIVE_AI_HOSTED_APPLICATION_DELETE
        ],
    }
    "generative-ai-hosted-application-iam" in "generative-ai-family" {
        inspect: [GENERATIVE_AI_HOSTED_APPLICATION_IAM_INSPECT],
        read: [GENERATIVE_AI_HOSTED_APPLICATION_IAM_READ],
        use: [GENERATIVE_AI_HOSTED_APPLICATION_IAM_UPDATE],
        manage: [
            GENERATIVE_AI_HOSTED_APPLICATION_IAM_CREATE,
            GENERATIVE_AI_HOSTED_APPLICATION_IAM_MOVE,
            GENERATIVE_AI_HOSTED_APPLICATION_IAM_DELETE
        ],
    }
    "generative-ai-vectorstore" in "generative-ai-family" {
        inspect: [GENERATIVE_AI_VECTORSTORE_INSPECT],
        read: [GENERATIVE_AI_VECTORSTORE_READ],
        use: [GENERATIVE_AI_VECTORSTORE_UPDATE],
        manage: [GENERATIVE_AI_VECTORSTORE_CREATE, GENERATIVE_AI_VECTORSTORE_DELETE],
    }
    "generative-ai-vectorstore-file" in "generative-ai-family" {
        inspect: [
            GENERATIVE_AI_VECTORSTORE_FILE_INSPECT,
            GENERATIVE_AI_VECTORSTORE_FILE_BATCH_INSPECT
        ],
        read: [
            GENERATIVE_AI_VECTORSTORE_FILE_READ,
            GENERATIVE_AI_VECTORSTORE_FILE_CONTENT_READ,
            GENERATIVE_AI_VECTORSTORE_FILE_BATCH_READ
        ],
        use: [GENERATIVE_AI_VECTORSTORE_FILE_UPDATE],
        manage: [
            GENERATIVE_AI_VECTORSTORE_FILE_CREATE,
            GENERATIVE_AI_VECTORSTORE_FILE_DELETE,
            GENERATIVE_AI_VECTORSTORE_FILE_BATCH_CREATE,
            GENERATIVE_AI_VECTORSTORE_FILE_BATCH_CANCEL
        ],
    }
    "generative-ai-file" in "generative-ai-family" {
        inspect: [GENERATIVE_AI_FILE_INSPECT],
        read: [GENERATIVE_AI_FILE_READ, GENERATIVE_AI_FILE_CONTENT_READ],
        manage: [
            GENERATIVE_AI_FILE_CREATE,
            GENERATIVE_AI_FILE_DELETE,
            GENERATIVE_AI_MULTIPART_FILE_CREATE,
            GENERATIVE_AI_MULTIPART_FILE_ADD,
            GENERATIVE_AI_MULTIPART_FILE_COMPLETE,
            GENERATIVE_AI_MULTIPART_FILE_CANCEL
        ],
    }
    "generative-ai-container" in "generative-ai-family" {
        inspect: [GENERATIVE_AI_CONTAINER_INSPECT],
        read: [GENERATIVE_AI_CONTAINER_READ],
        manage: [GENERATIVE_AI_CONTAINER_CREATE, GENERATIVE_AI_CONTAINER_DELETE],
    }
    "generative-ai-container-file" in "generative-ai-family" {
        inspect: [GENERATIVE_AI_CONTAINER_FILE_INSPECT],
        read: [GENERATIVE_AI_CONTAINER_FILE_READ, GENERATIVE_AI_CONTAINER_FILE_CONTENT_READ],
        manage: [GENERATIVE_AI_CONTAINER_FILE_CREATE, GENERATIVE_AI_CONTAINER_FILE_DELETE],
    }
    "generative-ai-nl2sql" in "generative-ai-family" {
        inspect: [GENERATIVE_AI_NL2SQL_INSPECT],
        read: [GENERATIVE_AI_NL2SQL_READ],
        manage: [GENERATIVE_AI_NL2SQL_GENERATE, GENERATIVE_AI_NL2SQL_CANCEL],
    }
    "compartments" {
        inspect: [COMPARTMENT_INSPECT],
        use: [COMPARTMENT_UPDATE],
        manage: [COMPARTMENT_CREATE, COMPARTMENT_DELETE, COMPARTMENT_RECOVER],
    }
    "policies" {
        inspect: [POLICY_READ],
        manage: [POLICY_UPDATE, POLICY_CREATE, POLICY_DELETE],
    }
    "users" {
        inspect: [USER_INSPECT],
        read: [USER_READ],
        use: [USER_UPDATE],
        manage: [
            USER_CREATE,
            USER_DELETE,
            USER_UNBLOCK,
            USER_CAPABILITIES_UPDATE,
            USER_APIKEY_ADD,
            USER_APIKEY_REMOVE,
            USER_UIPASS_SET,
            USER_UIPASS_RESET
        ],
    }
    "groups" {
        inspect: [GROUP_INSPECT],
        use: [GROUP_UPDATE],
        manage: [GROUP_CREATE, GROUP_DELETE],
    }
    "dynamic-groups" {
        inspect: [DYNAMIC_GROUP_INSPECT],
        use: [DYNAMIC_GROUP_UPDATE],
        manage: [DYNAMIC_GROUP_CREATE, DYNAMIC_GROUP_DELETE],
    }
    "tenancies" {
        inspect: [TENANCY_INSPECT],
        use: [TENANCY_UPDATE],
    }
    // Not a resource type of its own: what only `manage all-resources` grants.
    "all-resources" {
        manage: [ALL_RESOURCES_MANAGE],
    }
}

macro_rules! operations {
    ($($variant:ident $name:literal [$($needs:ident),+] $(: $note:literal)?;)+) => {
        /// An operation of the API, as `request.operation` names it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum Operation {
            $(#[doc = concat!("`", $name, "`.")] $variant,)+
        }

        impl Operation {
            /// Every operation, in the order of the table.
            pub const ALL: &'static [Operation] = &[$(Operation::$variant),+];
        }

        const OPERATIONS: &[OperationRow] = &[
            $(OperationRow {
                name: $name,
                needs: &[$(Permission::$needs),+],
                note: concat!("" $(, $note)?),
            },)+
        ];
    };
}

operations! {
    Chat "Chat" [GENERATIVE_AI_CHAT]: "Honshu: chat completions, responses and messages are this operation, as the native chat is";
    GenerateText "GenerateText" [GENERATIVE_AI_TEXT_GENERATE];
    SummarizeText "SummarizeText" [GENERATIVE_AI_TEXT_SUMMARIZE];
    EmbedText "EmbedText" [GENERATIVE_AI_TEXT_EMBED];
    RerankText "RerankText" [GENERATIVE_AI_TEXT_RERANK];

    ListApiKeys "ListApiKeys" [GENERATIVE_AI_APIKEY_INSPECT];
    GetApiKey "GetApiKey" [GENERATIVE_AI_APIKEY_READ];
    UpdateApiKey "UpdateApiKey" [GENERATIVE_AI_APIKEY_UPDATE];
    CreateApiKey "CreateApiKey" [GENERATIVE_AI_APIKEY_CREATE];
    RenewApiKey "RenewApiKey" [GENERATIVE_AI_APIKEY_RENEW]: "Honshu: the reference leaves it out; a renewed secret is a new secret, so it takes manage";
    SetApiKeyState "SetApiKeyState" [GENERATIVE_AI_APIKEY_STATE_UPDATE]: "Honshu: the reference leaves it out; it takes manage";
    ChangeApiKeyCompartment "ChangeApiKeyCompartment" [GENERATIVE_AI_APIKEY_MOVE];
    DeleteApiKey "DeleteApiKey" [GENERATIVE_AI_APIKEY_DELETE];

    ListModels "ListModels" [GENERATIVE_AI_MODEL_INSPECT];
    ListModelDiscovery "ListModelDiscovery" [GENERATIVE_AI_MODEL_INSPECT];
    GetModel "GetModel" [GENERATIVE_AI_MODEL_READ];
    UpdateModel "UpdateModel" [GENERATIVE_AI_MODEL_UPDATE];
    CreateModel "CreateModel" [GENERATIVE_AI_MODEL_CREATE];
    ChangeModelCompartment "ChangeModelCompartment" [GENERATIVE_AI_MODEL_MOVE];
    DeleteModel "DeleteModel" [GENERATIVE_AI_MODEL_DELETE];

    ListImportedModels "ListImportedModels" [GENERATIVE_AI_IMPORTED_MODEL_INSPECT];
    GetImportedModel "GetImportedModel" [GENERATIVE_AI_IMPORTED_MODEL_READ];
    UpdateImportedModel "UpdateImportedModel" [GENERATIVE_AI_IMPORTED_MODEL_UPDATE];
    CreateImportedModel "CreateImportedModel" [GENERATIVE_AI_IMPORTED_MODEL_CREATE];
    ChangeImportedModelCompartment "ChangeImportedModelCompartment" [GENERATIVE_AI_IMPORTED_MODEL_MOVE];
    DeleteImportedModel "DeleteImportedModel" [GENERATIVE_AI_IMPORTED_MODEL_DELETE];

    ListDedicatedAiClusters "ListDedicatedAiClusters" [GENERATIVE_AI_DEDICATED_AI_CLUSTER_INSPECT];
    GetDedicatedAiCluster "GetDedicatedAiCluster" [GENERATIVE_AI_DEDICATED_AI_CLUSTER_READ];
    UpdateDedicatedAiCluster "UpdateDedicatedAiCluster" [GENERATIVE_AI_DEDICATED_AI_CLUSTER_UPDATE];
    CreateDedicatedAiCluster "CreateDedicatedAiCluster" [GENERATIVE_AI_DEDICATED_AI_CLUSTER_CREATE];
    ChangeDedicatedAiClusterCompartment "ChangeDedicatedAiClusterCompartment" [GENERATIVE_AI_DEDICATED_AI_CLUSTER_MOVE];
    DeleteDedicatedAiCluster "DeleteDedicatedAiCluster" [GENERATIVE_AI_DEDICATED_AI_CLUSTER_DELETE];

    ListEndpoints "ListEndpoints" [GENERATIVE_AI_ENDPOINT_INSPECT];
    GetEndpoint "GetEndpoint" [GENERATIVE_AI_ENDPOINT_READ];
    UpdateEndpoint "UpdateEndpoint" [GENERATIVE_AI_ENDPOINT_UPDATE];
    CreateEndpoint "CreateEndpoint" [GENERATIVE_AI_ENDPOINT_CREATE];
    ChangeEndpointCompartment "ChangeEndpointCompartment" [GENERATIVE_AI_ENDPOINT_MOVE];
    DeleteEndpoint "DeleteEndpoint" [GENERATIVE_AI_ENDPOINT_DELETE];

    ListGenerativeAiPrivateEndpoints "ListGenerativeAiPrivateEndpoints" [GENERATIVE_AI_PRIVATE_ENDPOINT_INSPECT];
    GetGenerativeAiPrivateEndpoint "GetGenerativeAiPrivateEndpoint" [GENERATIVE_AI_PRIVATE_ENDPOINT_READ];
    UpdateGenerativeAiPrivateEndpoint "UpdateGenerativeAiPrivateEndpoint" [GENERATIVE_AI_PRIVATE_ENDPOINT_UPDATE];
    CreateGenerativeAiPrivateEndpoint "CreateGenerativeAiPrivateEndpoint" [GENERATIVE_AI_PRIVATE_ENDPOINT_CREATE];
    ChangeGenerativeAiPrivateEndpointCompartment "ChangeGenerativeAiPrivateEndpointCompartment" [GENERATIVE_AI_PRIVATE_ENDPOINT_MOVE];
    DeleteGenerativeAiPrivateEndpoint "DeleteGenerativeAiPrivateEndpoint" [GENERATIVE_AI_PRIVATE_ENDPOINT_DELETE];

    ListGenerativeAiProjects "ListGenerativeAiProjects" [GENERATIVE_AI_PROJECT_INSPECT];
    GetGenerativeAiProject "GetGenerativeAiProject" [GENERATIVE_AI_PROJECT_READ];
    UpdateGenerativeAiProject "UpdateGenerativeAiProject" [GENERATIVE_AI_PROJECT_UPDATE];
    CreateGenerativeAiProject "CreateGenerativeAiProject" [GENERATIVE_AI_PROJECT_CREATE];
    ChangeGenerativeAiProjectCompartment "ChangeGenerativeAiProjectCompartment" [GENERATIVE_AI_PROJECT_MOVE];
    DeleteGenerativeAiProject "DeleteGenerativeAiProject" [GENERATIVE_AI_PROJECT_DELETE];

    ListSemanticStores "ListSemanticStores" [GENERATIVE_AI_SEMANTIC_STORE_INSPECT];
    GetSemanticStore "GetSemanticStore" [GENERATIVE_AI_SEMANTIC_STORE_READ];
    UpdateSemanticStore "UpdateSemanticStore" [GENERATIVE_AI_SEMANTIC_STORE_UPDATE];
    CreateSemanticStore "CreateSemanticStore" [GENERATIVE_AI_SEMANTIC_STORE_CREATE];
    ChangeSemanticStoreCompartment "ChangeSemanticStoreCompartment" [GENERATIVE_AI_SEMANTIC_STORE_MOVE];
    DeleteSemanticStore "DeleteSemanticStore" [GENERATIVE_AI_SEMANTIC_STORE_DELETE];

    ListVectorStoreConnectors "ListVectorStoreConnectors" [GENERATIVE_AI_VECTORSTORE_CONNECTOR_INSPECT];
    GetVectorStoreConnector "GetVectorStoreConnector" [GENERATIVE_AI_VECTORSTORE_CONNECTOR_READ];
    UpdateVectorStoreConnector "UpdateVectorStoreConnector" [GENERATIVE_AI_VECTORSTORE_CONNECTOR_UPDATE];
    CreateVectorStoreConnector "CreateVectorStoreConnector" [GENERATIVE_AI_VECTORSTORE_CONNECTOR_CREATE];
    DeleteVectorStoreConnector "DeleteVectorStoreConnector" [GENERATIVE_AI_VECTORSTORE_CONNECTOR_DELETE];

    ListHostedApplications "ListHostedApplications" [GENERATIVE_AI_HOSTED_APPLICATION_INSPECT];
    GetHostedApplication "GetHostedApplication" [GENERATIVE_AI_HOSTED_APPLICATION_READ];
    UpdateHostedApplication "UpdateHostedApplication" [GENERATIVE_AI_HOSTED_APPLICATION_UPDATE];
    CreateHostedApplication "CreateHostedApplication" [GENERATIVE_AI_HOSTED_APPLICATION_CREATE];
    ChangeHostedApplicationCompartment "ChangeHostedApplicationCompartment" [GENERATIVE_AI_HOSTED_APPLICATION_MOVE];
    DeleteHostedApplication "DeleteHostedApplication" [GENERATIVE_AI_HOSTED_APPLICATION_DELETE];

    ListHostedApplicationsIam "ListHostedApplicationsIam" [GENERATIVE_AI_HOSTED_APPLICATION_IAM_INSPECT];
    GetHostedApplicationIam "GetHostedApplicationIam" [GENERATIVE_AI_HOSTED_APPLICATION_IAM_READ];
    UpdateHostedApplicationIam "UpdateHostedApplicationIam" [GENERATIVE_AI_HOSTED_APPLICATION_IAM_UPDATE];
    CreateHostedApplicationIam "CreateHostedApplicationIam" [GENERATIVE_AI_HOSTED_APPLICATION_IAM_CREATE];
    ChangeHostedApplicationIamCompartment "ChangeHostedApplicationIamCompartment" [GENERATIVE_AI_HOSTED_APPLICATION_IAM_MOVE];
    DeleteHostedApplicationIam "DeleteHostedApplicationIam" [GENERATIVE_AI_HOSTED_APPLICATION_IAM_DELETE];

    ListVectorStores "ListVectorStores" [GENERATIVE_AI_VECTORSTORE_INSPECT];
    GetVectorStore "GetVectorStore" [GENERATIVE_AI_VECTORSTORE_READ];
    SearchVectorStore "SearchVectorStore" [GENERATIVE_AI_VECTORSTORE_READ]: "Honshu: the reference names no operation for search; it reads the store";
    UpdateVectorStore "UpdateVectorStore" [GENERATIVE_AI_VECTORSTORE_UPDATE];
    CreateVectorStore "CreateVectorStore" [GENERATIVE_AI_VECTORSTORE_CREATE];
    DeleteVectorStore "DeleteVectorStore" [GENERATIVE_AI_VECTORSTORE_DELETE];

    ListFiles "ListFiles" [GENERATIVE_AI_FILE_INSPECT];
    GetFile "GetFile" [GENERATIVE_AI_FILE_READ];
    GetFileContent "GetFileContent" [GENERATIVE_AI_FILE_CONTENT_READ];
    CreateFile "CreateFile" [GENERATIVE_AI_FILE_CREATE];
    DeleteFile "DeleteFile" [GENERATIVE_AI_FILE_DELETE];

    ListEnrichmentJobs "ListEnrichmentJobs" [GENERATIVE_AI_NL2SQL_INSPECT];
    GetEnrichmentJob "GetEnrichmentJob" [GENERATIVE_AI_NL2SQL_READ];
    GenerateSqlFromNl "GenerateSqlFromNl" [GENERATIVE_AI_NL2SQL_GENERATE];
    GenerateEnrichmentJob "GenerateEnrichmentJob" [GENERATIVE_AI_NL2SQL_GENERATE];
    CancelEnrichmentJob "CancelEnrichmentJob" [GENERATIVE_AI_NL2SQL_CANCEL];

    ListCompartments "ListCompartments" [COMPARTMENT_INSPECT];
    GetCompartment "GetCompartment" [COMPARTMENT_INSPECT];
    ListAvailabilityDomains "ListAvailabilityDomains" [COMPARTMENT_INSPECT];
    UpdateCompartment "UpdateCompartment" [COMPARTMENT_UPDATE];
    CreateCompartment "CreateCompartment" [COMPARTMENT_CREATE]: "the target is the parent compartment";
    DeleteCompartment "DeleteCompartment" [COMPARTMENT_DELETE];
    RecoverCompartment "RecoverCompartment" [COMPARTMENT_RECOVER];
    MoveCompartment "MoveCompartment" [ALL_RESOURCES_MANAGE]: "takes manage all-resources on the lowest common parent";

    ListPolicies "ListPolicies" [POLICY_READ];
    GetPolicy "GetPolicy" [POLICY_READ];
    UpdatePolicy "UpdatePolicy" [POLICY_UPDATE];
    CreatePolicy "CreatePolicy" [POLICY_CREATE];
    DeletePolicy "DeletePolicy" [POLICY_DELETE];

    ListUsers "ListUsers" [USER_INSPECT];
    GetUser "GetUser" [USER_INSPECT];
    UpdateUser "UpdateUser" [USER_UPDATE];
    UpdateUserState "UpdateUserState" [USER_UPDATE, USER_UNBLOCK];
    UpdateUserCapabilities "UpdateUserCapabilities" [USER_UPDATE, USER_CAPABILITIES_UPDATE];
    CreateUser "CreateUser" [USER_CREATE];
    DeleteUser "DeleteUser" [USER_DELETE];
    CreateOrResetUIPassword "CreateOrResetUIPassword" [USER_UPDATE, USER_UIPASS_RESET];
    ListUserApiKeys "ListApiKeys" [USER_READ]: "the signing keys of a user";
    UploadApiKey "UploadApiKey" [USER_UPDATE, USER_APIKEY_ADD]: "a signing key of a user";
    DeleteUserApiKey "DeleteApiKey" [USER_UPDATE, USER_APIKEY_REMOVE]: "a signing key of a user";

    ListGroups "ListGroups" [GROUP_INSPECT];
    GetGroup "GetGroup" [GROUP_INSPECT];
    UpdateGroup "UpdateGroup" [GROUP_UPDATE];
    CreateGroup "CreateGroup" [GROUP_CREATE];
    DeleteGroup "DeleteGroup" [GROUP_DELETE];
    ListUserGroupMemberships "ListUserGroupMemberships" [GROUP_INSPECT, USER_INSPECT];
    GetUserGroupMembership "GetUserGroupMembership" [USER_INSPECT, GROUP_INSPECT];
    AddUserToGroup "AddUserToGroup" [GROUP_UPDATE, USER_UPDATE];
    RemoveUserFromGroup "RemoveUserFromGroup" [GROUP_UPDATE, USER_UPDATE];

    ListDynamicGroups "ListDynamicGroups" [DYNAMIC_GROUP_INSPECT];
    GetDynamicGroup "GetDynamicGroup" [DYNAMIC_GROUP_INSPECT];
    UpdateDynamicGroup "UpdateDynamicGroup" [DYNAMIC_GROUP_UPDATE];
    CreateDynamicGroup "CreateDynamicGroup" [DYNAMIC_GROUP_CREATE];
    DeleteDynamicGroup "DeleteDynamicGroup" [DYNAMIC_GROUP_DELETE];

    GetTenancy "GetTenancy" [TENANCY_INSPECT];
    ListRegions "ListRegions" [TENANCY_INSPECT];
    ListRegionSubscriptions "ListRegionSubscriptions" [TENANCY_INSPECT];
    UpdateTenancy "UpdateTenancy" [TENANCY_UPDATE]: "Honshu: for example turning deny statements on";
}

impl Permission {
    /// Finds a permission by its name, in any case.
    #[must_use]
    pub fn find(name: &str) -> Option<Permission> {
        Permission::ALL
            .iter()
            .copied()
            .find(|permission| permission.name().eq_ignore_ascii_case(name))
    }

    /// The resource type that the permission belongs to.
    #[must_use]
    pub fn resource_type(self) -> ResourceType {
        self.grant().0
    }

    /// The weakest verb that grants the permission on its resource type.
    #[must_use]
    pub fn weakest_verb(self) -> Verb {
        self.grant().1
    }

    /// The first operation of the table that needs only this permission: what
    /// `request.operation` says when the caller names no operation itself.
    #[must_use]
    pub fn primary_operation(self) -> Option<Operation> {
        Operation::ALL
            .iter()
            .copied()
            .find(|operation| operation.permissions() == [self])
    }

    fn grant(self) -> (ResourceType, Verb) {
        for (index, row) in TYPES.iter().enumerate() {
            for (verb, adds) in Verb::ALL.into_iter().zip(row.adds) {
                if adds.contains(&self) {
                    return (ResourceType::from_index(index), verb);
                }
            }
        }
        // Every variant stands in exactly one row, since the same macro makes both.
        (ResourceType::ALL_RESOURCES, Verb::Manage)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Permission {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Operation {
    /// The name that `request.operation` compares with. Two services of OCI share a few names,
    /// so this is not unique.
    #[must_use]
    pub fn name(self) -> &'static str {
        OPERATIONS[self as usize].name
    }

    /// Every permission that the caller must hold. An operation with several is allowed only if
    /// each of them is.
    #[must_use]
    pub fn permissions(self) -> &'static [Permission] {
        OPERATIONS[self as usize].needs
    }

    /// A remark for the reference page, often empty.
    #[must_use]
    pub fn note(self) -> &'static str {
        OPERATIONS[self as usize].note
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A resource type, a family of them, or `all-resources`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceType(u8);

/// The families besides `all-resources`.
const FAMILIES: [&str; 1] = ["generative-ai-family"];

impl ResourceType {
    /// `all-resources`.
    pub const ALL_RESOURCES: ResourceType = ResourceType(u8::MAX);
    const FIRST_FAMILY: u8 = 200;

    fn from_index(index: usize) -> ResourceType {
        if TYPES
            .get(index)
            .is_none_or(|row| row.name == "all-resources")
        {
            ResourceType::ALL_RESOURCES
        } else {
            ResourceType(u8::try_from(index).unwrap_or(u8::MAX))
        }
    }

    /// Every resource type, then the families, then `all-resources`.
    pub fn all() -> impl Iterator<Item = ResourceType> {
        let types = (0..TYPES.len())
            .map(ResourceType::from_index)
            .filter(|resource| *resource != ResourceType::ALL_RESOURCES);
        let families = (0u8..)
            .take(FAMILIES.len())
            .map(|index| ResourceType(ResourceType::FIRST_FAMILY + index));
        types.chain(families).chain([ResourceType::ALL_RESOURCES])
    }

    /// Finds a type or family by its name, in any case.
    #[must_use]
    pub fn find(name: &str) -> Option<ResourceType> {
        ResourceType::all().find(|resource| resource.name().eq_ignore_ascii_case(name))
    }

    /// The name as statements write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        if self == ResourceType::ALL_RESOURCES {
            "all-resources"
        } else if self.0 >= Self::FIRST_FAMILY {
            FAMILIES[usize::from(self.0 - Self::FIRST_FAMILY)]
        } else {
            TYPES[usize::from(self.0)].name
        }
    }

    /// The family that the type belongs to, if any.
    #[must_use]
    pub fn family(self) -> Option<&'static str> {
        TYPES.get(usize::from(self.0)).and_then(|row| row.family)
    }

    /// Whether this stands for several types.
    #[must_use]
    pub fn is_family(self) -> bool {
        self.0 >= Self::FIRST_FAMILY
    }

    /// What the verb alone adds on this type; families add what their members add.
    #[must_use]
    pub fn added_by(self, verb: Verb) -> PermissionSet {
        let mut set = PermissionSet::EMPTY;
        for (index, row) in TYPES.iter().enumerate() {
            let member = if self == ResourceType::ALL_RESOURCES {
                true
            } else if self.is_family() {
                row.family == Some(self.name())
            } else {
                index == usize::from(self.0)
            };
            if member {
                for permission in row.adds[verb as usize] {
                    set.insert(*permission);
                }
            }
        }
        set
    }

    /// Everything that the verb grants on this type: what it adds and what the weaker verbs add.
    #[must_use]
    pub fn granted_by(self, verb: Verb) -> PermissionSet {
        let mut set = PermissionSet::EMPTY;
        for weaker in Verb::ALL.into_iter().filter(|weaker| *weaker <= verb) {
            set.union_with(&self.added_by(weaker));
        }
        set
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const _: () = assert!(
    TYPES.len() < ResourceType::FIRST_FAMILY as usize,
    "ResourceType is too small for the table"
);

#[cfg(test)]
mod tests;
