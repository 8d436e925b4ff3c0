//! Decisions by behaviour: who may do what, where, and what the explanation says.

#![allow(
    clippy::unwrap_used,
    reason = "a failed test is a panic, also in its helpers"
)]

use std::sync::Arc;

use honshu_domain::Timestamp;
use honshu_policy::{
    AttachedPolicy, Compartment, CompileOptions, CompileProblem, Effect, Membership, Mismatch,
    Operation, Outcome, Permission, PolicySet, Reason, Request, Requester, Target, Tenancy,
    Variable,
};

const TENANCY: &str = "ocid1.tenancy.oc1..t";
const SALES: &str = "ocid1.compartment.oc1..sales";
const TOKYO: &str = "ocid1.compartment.oc1..tokyo";
const DEV: &str = "ocid1.compartment.oc1..dev";
const KEY: &str = "ocid1.generativeaiapikey.oc1.kix.k";
const CHAT: Permission = Permission::GENERATIVE_AI_CHAT;

/// tenancy > 営業 (SALES) > Tokyo (TOKYO); tenancy > Dev (DEV)
fn compile(deny_enabled: bool, policies: &[(&str, &[&str])]) -> PolicySet {
    let compartment = |id: &str, parent: &str, name: &str| Compartment {
        id: id.into(),
        parent_id: parent.into(),
        name: name.into(),
    };
    let policies: Vec<AttachedPolicy> = policies
        .iter()
        .enumerate()
        .map(|(index, (compartment_id, statements))| AttachedPolicy {
            id: format!("ocid1.policy.oc1..{index}").into(),
            name: format!("policy{index}").into(),
            compartment_id: (*compartment_id).into(),
            statements: statements.iter().map(|text| Arc::from(*text)).collect(),
        })
        .collect();
    PolicySet::compile(
        &Tenancy {
            id: TENANCY.into(),
            name: "root".into(),
        },
        &[
            compartment(SALES, TENANCY, "営業"),
            compartment(TOKYO, SALES, "Tokyo"),
            compartment(DEV, TENANCY, "Dev"),
        ],
        &policies,
        CompileOptions { deny_enabled },
    )
}

fn request<'a>(
    principal: Requester<'a>,
    permission: Permission,
    target: Target<'a>,
) -> Request<'a> {
    Request {
        principal,
        permission,
        target,
        region_key: Some("KIX"),
        // Friday 2026-01-23 09:30:00 UTC
        time: Timestamp::parse_rfc3339("2026-01-23T09:30:00Z").unwrap(),
        network_sources: None,
    }
}

fn key() -> Requester<'static> {
    Requester {
        compartment_id: Some(SALES),
        ..Requester::new("generativeaiapikey", KEY, TENANCY)
    }
}

fn user(groups: &[&'static str]) -> Requester<'static> {
    let groups = groups
        .iter()
        .map(|name| match name.split_once('/') {
            Some((domain, name)) => Membership {
                id: "ocid1.group.oc1..g",
                domain: Some(domain),
                name,
            },
            None => Membership {
                id: "ocid1.group.oc1..g",
                domain: None,
                name,
            },
        })
        .collect();
    Requester {
        name: Some("Aiko"),
        groups,
        ..Requester::new("user", "ocid1.user.oc1..u", TENANCY)
    }
}

fn allowed(statement: &str, request: &Request<'_>) -> bool {
    compile(false, &[(TENANCY, &[statement])])
        .decide(request)
        .is_allowed()
}

#[test]
fn the_articles_statement_lets_every_key_chat_in_its_compartment_and_below() {
    let set = compile(
        false,
        &[(
            TENANCY,
            &[
                "allow any-user to use generative-ai-chat in compartment 営業 where request.principal.type = 'generativeaiapikey'",
            ],
        )],
    );
    let decide = |principal: Requester<'_>, permission, target| {
        set.decide(&request(principal, permission, Target::new(target)))
            .is_allowed()
    };
    assert!(decide(key(), CHAT, SALES));
    assert!(decide(key(), CHAT, TOKYO));
    assert!(!decide(key(), CHAT, DEV));
    assert!(!decide(key(), CHAT, TENANCY));
    assert!(!decide(user(&["Dev"]), CHAT, SALES));
    assert!(!decide(
        key(),
        Permission::GENERATIVE_AI_MODEL_INSPECT,
        SALES
    ));
}

#[test]
fn nothing_is_allowed_without_a_statement_and_the_proof_names_what_was_asked() {
    let nothing = compile(true, &[]);
    let asked = request(key(), CHAT, Target::new(SALES).model("m"));
    let denied = nothing
        .authorize(&asked)
        .unwrap_err()
        .with_decision_id("d1");
    assert_eq!(denied.decision().reason, Reason::NoStatementAllows);
    assert_eq!(denied.decision_id(), Some("d1"));
    assert_eq!(denied.to_string(), "not authorized, or not found");

    let set = compile(
        false,
        &[(
            TENANCY,
            &["allow any-user to use generative-ai-chat in tenancy"],
        )],
    );
    let authorized = set.authorize(&asked).unwrap();
    assert_eq!(authorized.principal_id(), KEY);
    assert_eq!(authorized.compartment_id(), SALES);
    assert_eq!(authorized.model_id(), Some("m"));
    assert_eq!(authorized.operation(), Some(Operation::Chat));
}

#[test]
fn other_tenancies_and_unknown_compartments_are_refused_before_any_statement() {
    let set = compile(
        false,
        &[(
            TENANCY,
            &["allow any-user to manage all-resources in tenancy"],
        )],
    );
    let stranger = Requester::new("user", "ocid1.user.oc1..x", "ocid1.tenancy.oc1..other");
    let decision = set.decide(&request(stranger, CHAT, Target::new(SALES)));
    assert_eq!(decision.reason, Reason::OtherTenancy);
    let decision = set.decide(&request(
        key(),
        CHAT,
        Target::new("ocid1.compartment.oc1..gone"),
    ));
    assert_eq!(decision.reason, Reason::UnknownCompartment);
}

#[test]
fn subjects_match_those_whom_they_name() {
    let mut instance = Requester::new("instance", "ocid1.instance.oc1..i", TENANCY);
    instance.dynamic_groups = vec![Membership {
        id: "ocid1.dynamicgroup.oc1..d",
        domain: None,
        name: "Workers",
    }];
    let service = Requester::new("service", "batch", TENANCY);
    let table: [(&str, [bool; 4]); 11] = [
        // the key, the user in Dev and Other/Ops, the instance in Workers, the service batch
        ("any-user", [true, true, true, true]),
        ("any-group", [true, true, true, false]),
        ("group dev", [false, true, false, false]),
        ("group 'Default'/'Dev'", [false, true, false, false]),
        ("group 'Other'/'Dev'", [false, false, false, false]),
        ("group Nobody, other/OPS", [false, true, false, false]),
        ("group Ops", [false, false, false, false]),
        (
            "group id ocid1.group.oc1..x, id ocid1.group.oc1..G",
            [false, true, false, false],
        ),
        ("dynamic-group workers", [false, false, true, false]),
        (
            "dynamic-group id ocid1.dynamicgroup.oc1..d",
            [false, false, true, false],
        ),
        ("service other, Batch", [false, false, false, true]),
    ];
    for (subject, expected) in table {
        let statement = format!("allow {subject} to use generative-ai-chat in tenancy");
        let principals = [
            key(),
            user(&["Dev", "Other/Ops"]),
            instance.clone(),
            service.clone(),
        ];
        for (principal, expected) in principals.into_iter().zip(expected) {
            let kind = principal.kind.clone();
            let asked = request(principal, CHAT, Target::new(SALES));
            assert_eq!(allowed(&statement, &asked), expected, "{subject} {kind}");
        }
    }
}

#[test]
fn conditions_hold_as_the_reference_says() {
    let table = [
        ("request.principal.type = 'GenerativeAiApiKey'", true),
        ("request.principal.type != 'generativeaiapikey'", false),
        (
            "request.principal.id = 'ocid1.generativeaiapikey.oc1.kix.k'",
            true,
        ),
        (
            "request.principal.compartment.id = 'ocid1.compartment.oc1..sales'",
            true,
        ),
        ("target.model.id in ('x', 'OpenAI.GPT-oss-120b')", true),
        ("target.model.id not in ('x', 'openai.gpt-oss-120b')", false),
        ("target.model.id = /openai.*/", true),
        ("target.model.id != /openai.*/", false),
        ("target.model.id in ('x', /*120b/)", true),
        ("request.region = 'kix'", true),
        ("request.operation = 'chat'", true),
        ("request.permission = 'GENERATIVE_AI_CHAT'", true),
        ("target.compartment.name = 'tokyo'", true),
        (
            "target.compartment.id = 'ocid1.compartment.oc1..tokyo'",
            true,
        ),
        ("target.resource.tag.Ops.Stage = 'PROD'", true),
        ("target.resource.tag.ops.other = 'prod'", false),
        // A variable that does not apply makes every comparison false, and only `not` true.
        ("request.user.id = 'x'", false),
        ("request.user.id != 'x'", false),
        ("request.user.id not in ('x')", false),
        ("request.user.id", false),
        ("not request.user.id", true),
        ("target.model.id", true),
        ("not target.model.id", false),
        ("request.networkSource.name != 'corp'", false),
        ("request.groups.id != 'x'", false),
        ("any {request.user.id = 'x', request.region = 'KIX'}", true),
        ("all {request.user.id = 'x', request.region = 'KIX'}", false),
        (
            "all {request.region = 'KIX', any {target.model.id = 'a', target.model.id = /*gpt*/}}",
            true,
        ),
        ("request.utc-timestamp before '2026-01-23T09:30:01Z'", true),
        ("request.utc-timestamp before '2026-01-23T09:30:00Z'", false),
        ("request.utc-timestamp after '2026-01-23T09:29Z'", true),
        ("request.utc-timestamp after '2026-01-23T09:30:00Z'", false),
        (
            "request.utc-timestamp between '2026-01-23T09:30:00Z' and '2026-01-24Z'",
            true,
        ),
        (
            "request.utc-timestamp between '2026-01-22Z' and '2026-01-23Z'",
            false,
        ),
        ("request.utc-timestamp = '2026-01-23T09:30Z'", true),
        ("request.utc-timestamp = /2026-01-*/", true),
        ("request.utc-timestamp.month-of-year in ('1', '12')", true),
        ("request.utc-timestamp.day-of-month = '23'", true),
        (
            "request.utc-timestamp.day-of-week in ('monday', 'friday')",
            true,
        ),
        ("request.utc-timestamp.day-of-week = 'Saturday'", false),
        (
            "request.utc-timestamp.time-of-day between '09:00:00Z' and '17:00:00Z'",
            true,
        ),
        (
            "request.utc-timestamp.time-of-day between '22:00' and '09:00'",
            false,
        ),
        (
            "request.utc-timestamp.time-of-day between '09:30' and '08:00'",
            true,
        ),
    ];
    for (condition, expected) in table {
        let statement =
            format!("allow any-user to use generative-ai-chat in tenancy where {condition}");
        let target = Target::new(TOKYO).model("openai.gpt-oss-120b").with(
            Variable::find("target.resource.tag.ops.stage").unwrap(),
            "Prod",
        );
        assert_eq!(
            allowed(&statement, &request(key(), CHAT, target)),
            expected,
            "{condition}"
        );
    }
}

#[test]
fn lists_compare_by_their_elements() {
    let table = [
        ("request.groups.id = 'ocid1.group.oc1..g'", true, false),
        ("request.groups.id != 'ocid1.group.oc1..g'", false, true),
        (
            "request.groups.id in ('a', 'ocid1.group.oc1..g')",
            true,
            false,
        ),
        ("request.groups.id", true, true),
    ];
    for (condition, member, loner) in table {
        let statement =
            format!("allow any-user to use generative-ai-chat in tenancy where {condition}");
        assert_eq!(
            allowed(
                &statement,
                &request(user(&["Dev"]), CHAT, Target::new(SALES))
            ),
            member,
            "{condition}"
        );
        assert_eq!(
            allowed(&statement, &request(user(&[]), CHAT, Target::new(SALES))),
            loner,
            "{condition}"
        );
    }
    let statement = "allow any-user to use generative-ai-chat in tenancy where request.networkSource.name = 'corp'";
    let mut asked = request(key(), CHAT, Target::new(SALES));
    asked.network_sources = Some(&["vpn", "Corp"]);
    assert!(allowed(statement, &asked));
    asked.network_sources = Some(&[]);
    assert!(!allowed(statement, &asked));
}

#[test]
fn a_policy_holds_at_and_below_where_it_is_attached_and_nowhere_else() {
    let table: [(&str, &str, Option<&str>); 8] = [
        // attached to, location, the highest compartment in which it holds
        (TENANCY, "tenancy", Some(TENANCY)),
        (TENANCY, "compartment 営業:tokyo", Some(TOKYO)),
        (SALES, "compartment Tokyo", Some(TOKYO)),
        (SALES, "compartment 営業", Some(SALES)),
        (
            SALES,
            "compartment id ocid1.compartment.oc1..tokyo",
            Some(TOKYO),
        ),
        // What a policy cannot reach, it cannot give away.
        (SALES, "tenancy", None),
        (SALES, "compartment Dev", None),
        (SALES, "compartment id ocid1.compartment.oc1..dev", None),
    ];
    for (attached, location, expected) in table {
        let statement = format!("allow any-user to use generative-ai-chat in {location}");
        let set = compile(false, &[(attached, &[&statement])]);
        let holds: Vec<&str> = [TENANCY, SALES, TOKYO, DEV]
            .into_iter()
            .filter(|target| {
                set.decide(&request(key(), CHAT, Target::new(target)))
                    .is_allowed()
            })
            .collect();
        let wanted: &[&str] = match expected {
            Some(TENANCY) => &[TENANCY, SALES, TOKYO, DEV],
            Some(SALES) => &[SALES, TOKYO],
            Some(_) => &[TOKYO],
            None => &[],
        };
        assert_eq!(holds, wanted, "{attached} {location}");
        assert_eq!(
            set.warnings().is_empty(),
            expected.is_some(),
            "{attached} {location}"
        );
    }
}

#[test]
fn deny_counts_only_when_it_is_on_and_never_for_administrators() {
    let policies: &[(&str, &[&str])] = &[
        (
            TENANCY,
            &[
                "allow any-user to use generative-ai-family in tenancy",
                "allow group Administrators to manage all-resources in tenancy",
            ],
        ),
        (
            SALES,
            &[
                "deny any-user to use generative-ai-chat in compartment 営業 where target.model.id = /xai.*/",
            ],
        ),
    ];
    let ask = |on: bool,
               principal: Requester<'static>,
               model: &'static str,
               target: &'static str| {
        compile(on, policies).decide(&request(principal, CHAT, Target::new(target).model(model)))
    };
    assert!(ask(false, key(), "xai.grok-4", SALES).is_allowed());
    let decision = ask(true, key(), "xai.grok-4", TOKYO);
    assert_eq!(
        (decision.effect, decision.reason),
        (Effect::Deny, Reason::DeniedByStatement)
    );
    assert_eq!(&*decision.because[0].policy_name, "policy1");
    assert!(ask(true, key(), "meta.llama", SALES).is_allowed());
    assert!(ask(true, key(), "xai.grok-4", DEV).is_allowed());
    assert!(ask(true, user(&["administrators"]), "xai.grok-4", SALES).is_allowed());
    assert!(!ask(true, user(&["Other/Administrators"]), "xai.grok-4", SALES).is_allowed());
    let off = compile(false, policies);
    assert!(matches!(
        off.warnings()[0].problem,
        CompileProblem::DenyDisabled
    ));
}

#[test]
fn deny_of_a_verb_denies_exactly_what_the_verb_grants() {
    let set = compile(
        true,
        &[(
            TENANCY,
            &[
                "allow any-user to manage generative-ai-apikey in tenancy",
                "deny any-user to read generative-ai-apikey in tenancy",
            ],
        )],
    );
    let may = |permission| {
        set.decide(&request(key(), permission, Target::new(SALES)))
            .is_allowed()
    };
    assert!(!may(Permission::GENERATIVE_AI_APIKEY_INSPECT));
    assert!(!may(Permission::GENERATIVE_AI_APIKEY_READ));
    assert!(may(Permission::GENERATIVE_AI_APIKEY_UPDATE));
    assert!(may(Permission::GENERATIVE_AI_APIKEY_RENEW));
}

#[test]
fn a_policy_that_cannot_be_read_allows_nothing_and_may_close_its_compartment() {
    let good = "allow any-user to use generative-ai-chat in tenancy";
    let ask = |on: bool,
               bad: &str,
               attached: &str,
               principal: Requester<'static>,
               target: &'static str| {
        let set = compile(
            on,
            &[
                (
                    TENANCY,
                    &["allow group Administrators to manage all-resources in tenancy"],
                ),
                (TENANCY, &[good]),
                (
                    attached,
                    &[bad, "allow any-user to read generative-ai-model in tenancy"],
                ),
            ],
        );
        assert!(matches!(
            set.warnings()[0].problem,
            CompileProblem::Unreadable(_)
        ));
        let chat = set.decide(&request(principal.clone(), CHAT, Target::new(target)));
        let model = set.decide(&request(
            principal,
            Permission::GENERATIVE_AI_MODEL_READ,
            Target::new(target),
        ));
        (chat.reason, model.is_allowed())
    };
    let yes = Reason::AllowedByStatement;
    // An allow that cannot be read takes its neighbours with it, and nothing of other policies.
    assert_eq!(
        ask(
            true,
            "allow any-user to fly generative-ai-chat in tenancy",
            TENANCY,
            key(),
            SALES
        ),
        (yes, false)
    );
    // A deny that cannot be read closes the compartment, but only while deny counts.
    assert_eq!(
        ask(
            false,
            "deny any-user to fly kites in tenancy",
            SALES,
            key(),
            TOKYO
        ),
        (yes, false)
    );
    assert_eq!(
        ask(
            true,
            "deny any-user to fly kites in tenancy",
            SALES,
            key(),
            TOKYO
        ),
        (Reason::UnreadablePolicy, false)
    );
    assert_eq!(
        ask(
            true,
            "deny any-user to fly kites in tenancy",
            SALES,
            key(),
            DEV
        ),
        (yes, false)
    );
    assert_eq!(
        ask(
            true,
            "denny any-user to read groups in tenancy",
            SALES,
            key(),
            SALES
        )
        .0,
        Reason::UnreadablePolicy
    );
    // A text that begins as an allow may go on to deny.
    let both = "allow any-user to use groups in tenancy deny any-user to use groups in tenancy";
    assert_eq!(
        ask(true, both, SALES, key(), SALES).0,
        Reason::UnreadablePolicy
    );
    assert_eq!(
        ask(true, "", SALES, user(&["Administrators"]), SALES),
        (yes, true)
    );
}

#[test]
fn statements_across_tenancies_grant_nothing() {
    let set = compile(
        false,
        &[(
            TENANCY,
            &[
                "define tenancy Other as ocid1.tenancy.oc1..other",
                "admit any-user of any-tenancy to use generative-ai-chat in tenancy",
                "endorse any-user to use generative-ai-chat in any-tenancy",
            ],
        )],
    );
    assert!(
        !set.decide(&request(key(), CHAT, Target::new(SALES)))
            .is_allowed()
    );
    assert_eq!(set.warnings().len(), 3);
}

#[test]
fn the_explanation_names_the_first_failing_part_and_the_nearest_statement() {
    let set = compile(
        false,
        &[
            (
                TENANCY,
                &[
                    "allow group Ops to inspect users in compartment Dev",
                    "allow any-user to use generative-ai-chat in compartment 営業 where all {request.principal.type = 'generativeaiapikey', target.model.id in ('xai.grok-4', 'meta.llama')}",
                ],
            ),
            (
                SALES,
                &["allow any-user to inspect generative-ai-apikey in compartment 営業"],
            ),
        ],
    );
    let asked = request(key(), CHAT, Target::new(TOKYO).model("openai.gpt-oss-120b"));
    let explanation = set.explain(&asked);
    assert!(!explanation.decision.is_allowed());
    assert_eq!(
        explanation.location.as_deref(),
        Some("compartment 営業:Tokyo")
    );
    let nearest = explanation.nearest().unwrap();
    assert_eq!(nearest.statement.index, 1);
    assert_eq!(
        nearest.outcome,
        Outcome::Missed {
            mismatches: vec![Mismatch::Condition {
                stated: "target.model.id in ('xai.grok-4', 'meta.llama')".to_owned(),
                actual: Some(vec!["openai.gpt-oss-120b".to_owned()]),
            }]
        }
    );
    // The draft would allow exactly this.
    let draft = explanation.draft.clone().unwrap();
    assert!(allowed(&draft, &asked));
    assert!(!allowed(
        &draft,
        &request(key(), CHAT, Target::new(TOKYO).model("other"))
    ));
    let rendered = explanation.render();
    assert!(
        rendered.contains("the value is 'openai.gpt-oss-120b'"),
        "{rendered}"
    );
    assert!(
        serde_json::to_value(&explanation).unwrap()["considered"][0]["outcome"]["mismatches"][0]["actual"]
            [0]
            == "openai.gpt-oss-120b"
    );

    let one_word = set.explain(&request(
        key(),
        Permission::GENERATIVE_AI_APIKEY_UPDATE,
        Target::new(SALES),
    ));
    let Outcome::Missed { mismatches } = &one_word.nearest().unwrap().outcome else {
        panic!("{one_word:?}")
    };
    assert_eq!(
        mismatches[0].to_string(),
        "`inspect generative-ai-apikey` does not grant GENERATIVE_AI_APIKEY_UPDATE; `use generative-ai-apikey` would"
    );
}

#[test]
fn a_key_is_in_no_group_whatever_its_principal_says() {
    let ocid = |text: &str| honshu_domain::Ocid::parse(text).unwrap();
    let mut principal = honshu_domain::Principal {
        kind: honshu_domain::PrincipalKind::ApiKey,
        id: ocid("ocid1.generativeaiapikey.oc1.ap-osaka-1.k"),
        name: "key".into(),
        tenancy: ocid(TENANCY),
        compartment: ocid(SALES),
        groups: vec![(ocid("ocid1.group.oc1..g"), Arc::from("Administrators"))].into(),
        secret_name: None,
    };
    assert!(!Requester::from(&principal).is_administrator());
    principal.kind = honshu_domain::PrincipalKind::User;
    assert!(Requester::from(&principal).is_administrator());
}
