//! The first start, who somebody is, what they may do, and the resources that say so.

use super::*;

#[tokio::test]
async fn init_is_done_once_and_its_files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut house = House::new().await;
    let profile = AdminProfile::of(&house.home.path().canonicalize().unwrap());
    let before = std::fs::read(&profile.key).unwrap();
    for path in [&profile.config, &profile.key] {
        assert_eq!(
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    assert!(
        std::fs::read_to_string(&profile.config)
            .unwrap()
            .starts_with("[DEFAULT]\nuser=ocid1.user.oc1..")
    );
    let bootstrap = Bootstrap::new(house.clock.clone(), Arc::new(SystemEntropy));
    let refused = bootstrap
        .init(house.home.path(), &osaka())
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("in use by process"), "{refused}");
    let House { home, root, .. } = {
        house.directory = None;
        house
    };
    let again = bootstrap.init(home.path(), &osaka()).await.unwrap();
    assert_eq!(
        again,
        Initialised::AlreadyDone {
            tenancy: root,
            profile: profile.clone()
        }
    );
    assert!(again.to_string().starts_with("already initialised"));
    assert_eq!(std::fs::read(&profile.key).unwrap(), before);
}

#[tokio::test]
async fn an_init_that_was_cut_short_is_made_good_by_the_next() {
    let home = tempfile::tempdir().unwrap();
    // What is left when the process dies after the files and before the database.
    std::fs::create_dir_all(home.path().join("admin")).unwrap();
    std::fs::write(home.path().join("admin/config"), "[DEFAULT]\nuser=old\n").unwrap();
    std::fs::write(home.path().join("admin/key.pem.tmp"), "half").unwrap();
    let clock = Arc::new(TestClock(AtomicI64::new(start().as_micros())));
    let bootstrap = Bootstrap::new(clock.clone(), Arc::new(SystemEntropy));
    let Initialised::Made { user, .. } = bootstrap.init(home.path(), &osaka()).await.unwrap()
    else {
        panic!()
    };
    let directory = DataDir::open(home.path()).unwrap();
    open(&directory, clock)
        .await
        .authenticate_admin(home.path(), &user);
}

#[tokio::test]
async fn another_pepper_is_refused_at_start_in_words() {
    let house = House::new().await;
    let House {
        home,
        directory,
        clock,
        control,
        ..
    } = house;
    drop(control);
    std::fs::write(home.path().join("pepper"), "x".repeat(40)).unwrap();
    let directory = directory.unwrap();
    let pepper = Pepper::load_or_create(directory.path(), &SystemEntropy).unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&directory).unwrap());
    let opened = Control::open(store, pepper, vec![osaka()], clock, Arc::new(SystemEntropy)).await;
    assert!(matches!(opened.err(), Some(ControlError::WrongPepper)));
}

#[tokio::test]
async fn a_signature_counts_for_its_request_time_and_user_only() {
    let house = House::new().await;
    let home = house.home.path();
    let headers = signed(home, "GET", "/20160918/compartments", house.clock.now());
    let verify = |target: &str| {
        let request = CanonicalRequest {
            method: &http::Method::GET,
            raw_target: target,
            headers: &headers,
        };
        house
            .control
            .authenticate_signature(headers["authorization"].as_bytes(), &request)
    };
    assert!(verify("/20160918/compartments").is_ok());
    let other = verify("/20160918/policies").err().unwrap();
    house.pass(Duration::from_secs(301));
    let late = verify("/20160918/compartments").err().unwrap();
    assert_eq!(other.to_string(), late.to_string());
    assert_ne!(other.reason_for_log(), late.reason_for_log());
}

#[tokio::test]
async fn a_key_may_do_nothing_until_a_policy_says_so_and_nothing_again_without_it() {
    let house = House::new().await;
    let dev = house.compartment("dev", "root").await;
    let prod = house.compartment("prod", "root").await;
    let key = house.key().await;
    let principal = house.bearer(&secret(&key, 0)).unwrap();
    assert!(!house.chat(&principal, &dev.id));
    let policy = house
        .policy("root", "allow any-user to use generative-ai-family in compartment dev where ALL {request.principal.type='generativeaiapikey'}")
        .await
        .unwrap();
    assert!(house.chat(&principal, &dev.id));
    assert!(!house.chat(&principal, &prod.id));
    house
        .control
        .delete_policy(&house.ctx(), policy.id.as_str(), None)
        .await
        .unwrap();
    assert!(!house.chat(&principal, &dev.id));
    // The management plane takes no key, whatever policies say.
    let ctx = house.ctx_of(principal, &osaka());
    house
        .policy("root", "allow any-user to manage all-resources in tenancy")
        .await
        .unwrap();
    assert_eq!(
        kind(house.control.get_api_key(&ctx, key.id.as_str())),
        ErrorKind::Unauthenticated
    );
}

#[tokio::test]
async fn what_is_forbidden_and_what_is_missing_look_the_same_and_can_be_explained_to_administrators()
 {
    let house = House::new().await;
    let key = house.key().await;
    let nobody = house.nobody();
    let missing = format!("{}x", key.id);
    let forbidden = house
        .control
        .get_api_key(&nobody, key.id.as_str())
        .unwrap_err();
    let absent = house.control.get_api_key(&nobody, &missing).unwrap_err();
    assert_eq!(
        (forbidden.kind(), forbidden.message()),
        (absent.kind(), absent.message())
    );
    assert_eq!(forbidden.kind(), ErrorKind::NotFound);
    let (forbidden, absent) = (
        forbidden.decision_id().unwrap(),
        absent.decision_id().unwrap(),
    );
    assert_eq!(forbidden.len(), absent.len());
    assert_eq!(
        house
            .control
            .get_api_key(&house.ctx(), &missing)
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );

    let opened = house.control.explain(&house.ctx(), forbidden).unwrap();
    assert_eq!(
        opened.permission,
        Some(Permission::GENERATIVE_AI_APIKEY_READ)
    );
    assert_eq!(
        opened.reason,
        Some(honshu_policy::Reason::NoStatementAllows)
    );
    assert_eq!(
        house
            .control
            .explain(&house.ctx(), absent)
            .unwrap()
            .permission,
        None
    );
    assert_eq!(
        kind(house.control.explain(&nobody, forbidden)),
        ErrorKind::NotFound
    );
    house.pass(Duration::from_secs(8 * 86_400));
    assert_eq!(
        kind(house.control.explain(&house.ctx(), forbidden)),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn a_group_of_one_compartment_sees_nothing_of_another() {
    let house = House::new().await;
    let dev = house.compartment("dev", "root").await;
    let prod = house.compartment("prod", "root").await;
    let inner = house.compartment("inner", dev.id.as_str()).await;
    house
        .policy(
            "root",
            "allow group Developers to manage all-resources in compartment dev",
        )
        .await
        .unwrap();
    let mut principal = house.nobody().principal;
    principal.groups = Arc::from([(
        Ocid::parse("ocid1.group.oc1..d").unwrap(),
        Arc::from("Developers"),
    )]);
    let developer = house.ctx_of(principal, &osaka());

    let list = |parent: &str| {
        let asked = ListCompartments {
            compartment_id: parent.to_owned(),
            in_subtree: true,
            ..ListCompartments::default()
        };
        house
            .control
            .list_compartments(&developer, &asked)
            .map(|page| {
                page.items
                    .into_iter()
                    .map(|row| row.name)
                    .collect::<std::collections::BTreeSet<_>>()
            })
    };
    assert_eq!(
        list("root").unwrap(),
        ["dev".to_owned(), "inner".to_owned()].into()
    );
    assert_eq!(kind(list(prod.id.as_str())), ErrorKind::NotFound);
    assert_eq!(kind(list("prod")), ErrorKind::NotFound);
    assert_eq!(
        kind(house.control.list_compartments(
            &house.nobody(),
            &ListCompartments {
                compartment_id: "root".into(),
                in_subtree: true,
                ..ListCompartments::default()
            }
        )),
        ErrorKind::NotFound
    );

    house
        .control
        .create_api_key(&developer, key_details("inner", &["one"]), None)
        .await
        .unwrap();
    for place in [prod.id.as_str(), "prod", house.root.as_str()] {
        let refused = house
            .control
            .create_api_key(&developer, key_details(place, &["one"]), None)
            .await;
        assert_eq!(kind(refused), ErrorKind::NotFound);
        let asked = ListApiKeys {
            compartment_id: place.to_owned(),
            ..ListApiKeys::default()
        };
        assert_eq!(
            kind(house.control.list_api_keys(&developer, &asked)),
            ErrorKind::NotFound
        );
        let asked = ListPolicies {
            compartment_id: place.to_owned(),
            ..ListPolicies::default()
        };
        assert_eq!(
            kind(house.control.list_policies(&developer, &asked)),
            ErrorKind::NotFound
        );
    }
    // A key cannot be moved to where the mover may not create one.
    let asked = ListApiKeys {
        compartment_id: inner.id.to_string(),
        ..ListApiKeys::default()
    };
    let key = house
        .control
        .list_api_keys(&developer, &asked)
        .unwrap()
        .items
        .remove(0);
    let to = |id: &Ocid| oci::ChangeApiKeyCompartmentDetails {
        compartment_id: id.to_string(),
    };
    let moved = house
        .control
        .change_api_key_compartment(&developer, key.id.as_str(), to(&prod.id), None)
        .await;
    assert_eq!(kind(moved), ErrorKind::NotFound);
    let moved = house
        .control
        .change_api_key_compartment(&developer, key.id.as_str(), to(&dev.id), None)
        .await;
    assert_eq!(moved.unwrap().value.compartment_id, dev.id);
}

#[tokio::test]
async fn every_problem_of_every_statement_is_told_with_its_column() {
    let house = House::new().await;
    let details = |statements: &[&str]| oci::CreatePolicyDetails {
        compartment_id: "root".to_owned(),
        name: "p".to_owned(),
        statements: statements.iter().map(|text| (*text).to_owned()).collect(),
        description: "d".to_owned(),
        version_date: None,
        freeform_tags: None,
        defined_tags: None,
    };
    let error = house
        .control
        .create_policy(
            &house.ctx(),
            details(&[
                "allow group A to fly in tenancy",
                "allow any-user to inspect policies in tenancy",
                "permit x",
            ]),
            None,
        )
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error
            .problems()
            .iter()
            .any(|p| p.path == "statements[0]" && p.message.starts_with("column 18: ")),
        "{error}"
    );
    assert!(
        error.problems().iter().any(|p| p.path == "statements[2]"),
        "{error}"
    );
    assert!(
        !error.problems().iter().any(|p| p.path == "statements[1]"),
        "{error}"
    );
    for refused in [
        "allow any-user to inspect policies in compartment nowhere",
        "deny any-user to inspect policies in tenancy",
        "endorse group A to manage all-resources in any-tenancy",
    ] {
        let error = house
            .control
            .create_policy(&house.ctx(), details(&[refused]), None)
            .await
            .unwrap_err();
        assert_eq!(error.problems()[0].path, "statements[0]", "{error}");
    }
}

#[tokio::test]
async fn deny_statements_count_while_the_tenancy_has_them_on() {
    let house = House::new().await;
    let tenancy = house.root.as_str().to_owned();
    let set = |on| oci::UpdateTenancyDetails {
        is_deny_enabled: Some(on),
    };
    let deny = oci::CreatePolicyDetails {
        compartment_id: tenancy.clone(),
        name: "p".to_owned(),
        description: "d".to_owned(),
        statements: vec!["deny any-user to use generative-ai-chat in tenancy".to_owned()],
        version_date: None,
        freeform_tags: None,
        defined_tags: None,
    };
    let denied = || async {
        house
            .control
            .create_policy(&house.ctx(), deny.clone(), None)
            .await
    };
    assert!(
        !house
            .control
            .get_tenancy(&house.ctx(), &tenancy)
            .unwrap()
            .is_deny_enabled
    );
    let error = denied().await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("honshu policy settings --deny on"),
        "{error}"
    );
    let shown = house
        .control
        .update_tenancy(&house.ctx(), &tenancy, set(true))
        .await
        .unwrap();
    assert!(shown.is_deny_enabled);
    denied().await.unwrap();
    let nothing = oci::UpdateTenancyDetails::default();
    let shown = house
        .control
        .update_tenancy(&house.ctx(), &tenancy, nothing)
        .await
        .unwrap();
    assert!(shown.is_deny_enabled, "what is not named stays");
    assert_eq!(
        house.control.get_tenancy(&house.ctx(), &tenancy).unwrap(),
        shown
    );
    house
        .control
        .update_tenancy(&house.ctx(), &tenancy, set(false))
        .await
        .unwrap();
    assert!(
        !house
            .control
            .get_tenancy(&house.ctx(), &tenancy)
            .unwrap()
            .is_deny_enabled
    );
    let other = "ocid1.tenancy.oc1..other";
    let error = house
        .control
        .update_tenancy(&house.ctx(), other, set(true))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn the_administrators_cannot_lock_themselves_out() {
    let house = House::new().await;
    let asked = ListPolicies {
        compartment_id: "root".to_owned(),
        ..ListPolicies::default()
    };
    let policy = house
        .control
        .list_policies(&house.ctx(), &asked)
        .unwrap()
        .items
        .remove(0);
    assert_eq!(policy.name, "Tenant Admin Policy");
    let id = policy.id.as_str();
    assert_eq!(
        kind(house.control.delete_policy(&house.ctx(), id, None).await),
        ErrorKind::Conflict
    );
    let weaker = oci::UpdatePolicyDetails {
        statements: Some(vec![
            "allow group A to inspect policies in tenancy".to_owned(),
        ]),
        ..Default::default()
    };
    assert_eq!(
        kind(
            house
                .control
                .update_policy(&house.ctx(), id, weaker, None)
                .await
        ),
        ErrorKind::Conflict
    );
    let root = house.root.as_str();
    assert_eq!(
        kind(
            house
                .control
                .delete_compartment(&house.ctx(), root, None)
                .await
        ),
        ErrorKind::Conflict
    );
}

#[tokio::test]
async fn compartments_are_named_once_nested_six_deep_and_deleted_when_empty() {
    let house = House::new().await;
    let mut parent = "root".to_owned();
    for level in 1..=6 {
        parent = house
            .compartment(&format!("level{level}"), &parent)
            .await
            .id
            .to_string();
    }
    let create = |name: &str, parent: &str| {
        let details = oci::CreateCompartmentDetails {
            compartment_id: parent.to_owned(),
            name: name.to_owned(),
            description: "d".to_owned(),
            freeform_tags: None,
            defined_tags: None,
        };
        let (ctx, control) = (house.ctx(), Arc::clone(&house.control));
        async move { control.create_compartment(&ctx, details, None).await }
    };
    assert_eq!(kind(create("level7", &parent).await), ErrorKind::Invalid);
    assert_eq!(kind(create("LEVEL1", "root").await), ErrorKind::Conflict);
    assert_eq!(kind(create("Root", "root").await), ErrorKind::Invalid);
    assert_eq!(kind(create("a b", "root").await), ErrorKind::Invalid);
    create("level2", "root").await.unwrap();
    assert_eq!(
        kind(house.control.get_compartment(&house.ctx(), "level2")),
        ErrorKind::Invalid
    );
    assert_eq!(
        house
            .control
            .get_compartment(&house.ctx(), "level1:Level2")
            .unwrap()
            .value
            .name,
        "level2"
    );
    assert_eq!(
        kind(
            house
                .control
                .delete_compartment(&house.ctx(), "level1", None)
                .await
        ),
        ErrorKind::Conflict
    );
    house
        .control
        .delete_compartment(&house.ctx(), &parent, None)
        .await
        .unwrap();
    assert_eq!(
        kind(house.control.get_compartment(&house.ctx(), &parent)),
        ErrorKind::NotFound
    );
}
