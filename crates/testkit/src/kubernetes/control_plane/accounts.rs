//! Users and service accounts of a control plane, and how they prove who they are.

use anyhow::Context as _;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;

use super::ControlPlane;
use crate::kubernetes::account::{Access, Credential, kubeconfig};

impl ControlPlane {
    /// A user of this name with exactly these ClusterRoles, known by a client certificate.
    ///
    /// # Errors
    ///
    /// Fails when the API server refuses a binding.
    pub async fn user(&self, name: &str, cluster_roles: &[&str]) -> anyhow::Result<Access> {
        let subject = Subject {
            api_group: Some("rbac.authorization.k8s.io".into()),
            kind: "User".into(),
            name: name.into(),
            ..Subject::default()
        };
        self.bind(&subject, cluster_roles).await?;
        self.certified(&format!("user-{name}"), name, &[])
    }

    /// The same for programs on a machine that is [attached](crate::kubernetes::Underlay::attach) to
    /// the underlay of a cluster: they reach the API server at the address of the bridge.
    ///
    /// # Errors
    ///
    /// As [`Self::user`].
    pub async fn user_on_underlay(
        &self,
        name: &str,
        cluster_roles: &[&str],
    ) -> anyhow::Result<Access> {
        let _on_this_machine = self.user(name, cluster_roles).await?;
        self.certified_inside(&format!("underlay-{name}"), name, &[])
    }

    /// A service account with exactly these ClusterRoles, known by a token: what a pod of it would have.
    ///
    /// # Errors
    ///
    /// Fails when the API server refuses the account, a binding or the token.
    pub async fn service_account(
        &self,
        namespace: &str,
        name: &str,
        cluster_roles: &[&str],
    ) -> anyhow::Result<Access> {
        let subject = Subject {
            kind: "ServiceAccount".into(),
            name: name.into(),
            namespace: Some(namespace.into()),
            ..Subject::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, namespace);
        let account = ServiceAccount {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            ..ServiceAccount::default()
        };
        let post = PostParams::default();
        accounts
            .create(&post, &account)
            .await
            .with_context(|| format!("cannot make service account {namespace}/{name}"))?;
        self.bind(&subject, cluster_roles).await?;
        let request =
            TokenRequest { spec: Some(TokenRequestSpec::default()), ..TokenRequest::default() };
        let granted = accounts
            .create_token_request(name, &post, &request)
            .await
            .context("cannot get a token")?;
        let token =
            granted.status.and_then(|it| it.token).context("a token request without a token")?;
        let text = kubeconfig(&self.url(), &self.authority.pair.public, &Credential::Token(&token));
        Ok(Access::new(
            self.workspace.write(&format!("account-{namespace}-{name}.kubeconfig"), text)?,
        ))
    }

    async fn bind(&self, subject: &Subject, cluster_roles: &[&str]) -> anyhow::Result<()> {
        let bindings: Api<ClusterRoleBinding> = Api::all(self.client().await?);
        for role in cluster_roles {
            let binding = ClusterRoleBinding {
                metadata: ObjectMeta {
                    generate_name: Some("testkit-".into()),
                    ..ObjectMeta::default()
                },
                role_ref: RoleRef {
                    api_group: Some("rbac.authorization.k8s.io".into()),
                    kind: "ClusterRole".into(),
                    name: (*role).into(),
                },
                subjects: Some(vec![subject.clone()]),
            };
            let bound = bindings.create(&PostParams::default(), &binding).await;
            bound.with_context(|| format!("cannot bind ClusterRole {role} to {}", subject.name))?;
        }
        Ok(())
    }

    /// Writes a kubeconfig with a client certificate, for programs of this process's network namespace.
    pub(super) fn certified(
        &self,
        file: &str,
        user: &str,
        groups: &[&str],
    ) -> anyhow::Result<Access> {
        self.certified_at(&self.url(), file, user, groups)
    }

    /// The same for programs inside the namespaces of a cluster.
    pub(in crate::kubernetes) fn certified_inside(
        &self,
        file: &str,
        user: &str,
        groups: &[&str],
    ) -> anyhow::Result<Access> {
        self.certified_at(&self.url_inside(), file, user, groups)
    }

    fn certified_at(
        &self,
        url: &str,
        file: &str,
        user: &str,
        groups: &[&str],
    ) -> anyhow::Result<Access> {
        let pair = self.authority.client(user, groups)?;
        let text = kubeconfig(url, &self.authority.pair.public, &Credential::Certificate(&pair));
        Ok(Access::new(self.workspace.write(&format!("{file}.kubeconfig"), text)?))
    }
}
