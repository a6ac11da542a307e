//! Which container and which pod a process is in, by what the kernel tells of its control groups and mounts.

/// What is known of a process's container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// `container.id`: 64 hexadecimal digits, or what Amazon ECS on Fargate gives out.
    pub id: Option<String>,
    /// `k8s.pod.uid`.
    pub pod_uid: Option<String>,
}

impl Container {
    /// Reads `/proc/<pid>/cgroup` (cgroups(7)): lines of `hierarchy:controllers:path`, version 1 and 2 alike.
    #[must_use]
    pub fn from_cgroup(text: &str) -> Self {
        let mut container = Self::default();
        for path in paths(text) {
            if container.id.is_none() {
                container.id = path.rsplit('/').find_map(id_of_component).map(str::to_owned);
            }
            if container.pod_uid.is_none() && path.contains("kubepods") {
                container.pod_uid = path.rsplit('/').find_map(pod_of_component);
            }
        }
        container
    }

    /// Whether the control groups of a process tell nothing because it and this reader sit in the same namespace of
    /// them, so that [`Container::or_mounts`] is worth asking.
    #[must_use]
    pub fn hidden(cgroup: &str) -> bool {
        paths(cgroup).any(|path| path == "/") && Self::from_cgroup(cgroup) == Self::default()
    }

    /// Fills in what `/proc/<pid>/mountinfo` (proc(5)) tells: container managers mount files of their
    /// own, from a directory named as the container, over `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf`.
    ///
    /// In a pod these files belong to the pod's sandbox, whose id is not the container's: there only the pod is told.
    #[must_use]
    pub fn or_mounts(mut self, mountinfo: &str) -> Self {
        let mounts = || {
            mountinfo.lines().filter_map(|line| {
                let mut fields = line.split(' ').skip(3);
                Some((fields.next()?, fields.next()?))
            })
        };
        if self.pod_uid.is_none() {
            self.pod_uid = mounts().find_map(|(root, _)| {
                let (_, after) = root.split_once("kubelet/pods/")?;
                pod_uid(after.split('/').next()?)
            });
        }
        if self.id.is_none() && self.pod_uid.is_none() {
            self.id = mounts().find_map(|(root, point)| {
                let ours = matches!(point, "/etc/hostname" | "/etc/hosts" | "/etc/resolv.conf");
                let (_, after) = root.rsplit_once("containers/")?;
                let id = after.split('/').next().filter(|id| ours && is_id(id))?;
                Some(id.to_owned())
            });
        }
        self
    }
}

fn paths(cgroup: &str) -> impl Iterator<Item = &str> {
    cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

/// The container's id in a component of a path: `<id>`, `docker-<id>.scope`, `cri-containerd-<id>.scope`,
/// `libpod-<id>.scope`, `kubepods-….slice:cri-containerd:<id>`, or `<32 digits>-<number>` of ECS on Fargate.
fn id_of_component(component: &str) -> Option<&str> {
    // The monitor of a container (conmon) is not in it.
    if component.contains("conmon") {
        return None;
    }
    let component = component.strip_suffix(".scope").unwrap_or(component);
    let id = component.rsplit(['-', ':']).next().unwrap_or(component);
    if is_id(id) {
        return Some(id);
    }
    let (task, number) = component.split_once('-')?;
    let fargate = task.len() == 32 && is_hex(task);
    let numbered = number.len() >= 9 && number.bytes().all(|octet| octet.is_ascii_digit());
    (fargate && numbered).then_some(component)
}

/// The pod's uid in a component of a path: `pod<uid>` or `kubepods-burstable-pod<uid with underscores>.slice`.
fn pod_of_component(component: &str) -> Option<String> {
    // containerd's own form puts slice, runtime and container into one component.
    let slice = component.split(':').next().unwrap_or(component);
    let slice = slice.strip_suffix(".slice").unwrap_or(slice);
    let (before, uid) = slice.rsplit_once("pod")?;
    if !before.is_empty() && !before.ends_with('-') {
        return None;
    }
    pod_uid(&uid.replace('_', "-"))
}

/// A uid as Kubernetes gives out: a UUID, or 32 digits for a pod from a node's own manifest files.
fn pod_uid(text: &str) -> Option<String> {
    let uuid = || {
        let mut lengths = text.split('-').map(str::len);
        [8, 4, 4, 4, 12].into_iter().all(|expected| lengths.next() == Some(expected)) && lengths.next().is_none()
    };
    let digits = text.split('-').all(is_hex);
    (digits && (text.len() == 32 || uuid())).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "7be92808767a667f35c8505cbf40d14e931ef6db5b0210329cf193b15ba9d605";
    const OUTER: &str = "0000000000000000000000000000000000000000000000000000000000000000";
    const UID: &str = "2f1b5e3a-9c4d-4e6f-8a7b-1c2d3e4f5a6b";

    #[test]
    fn containers_in_control_groups() {
        let underscored = UID.replace('-', "_");
        let cases = [
            (format!("0::/docker/{ID}"), Some(ID), None),
            (format!("12:pids:/docker/{ID}\n11:memory:/docker/{ID}\n0::/"), Some(ID), None),
            (format!("0::/system.slice/docker-{ID}.scope"), Some(ID), None),
            (format!("0::/system.slice/docker-{ID}.scope/init"), Some(ID), None),
            (format!("0::/docker/{OUTER}/docker/{ID}"), Some(ID), None),
            (format!("0::/../{ID}"), Some(ID), None),
            (format!("0::/../cri-containerd-{ID}.scope"), Some(ID), None),
            (format!("0::/machine.slice/libpod-{ID}.scope/container"), Some(ID), None),
            (
                format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"),
                Some(ID),
                None,
            ),
            (format!("0::/machine.slice/libpod-conmon-{ID}.scope"), None, None),
            (format!("0::/kubepods/burstable/pod{UID}/{ID}"), Some(ID), Some(UID)),
            (format!("11:cpu,cpuacct:/kubepods/pod{UID}/{ID}"), Some(ID), Some(UID)),
            (
                format!(
                    "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{underscored}.slice/cri-containerd-{ID}.scope"
                ),
                Some(ID),
                Some(UID),
            ),
            (
                format!(
                    "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{underscored}.slice/crio-{ID}.scope"
                ),
                Some(ID),
                Some(UID),
            ),
            (
                format!(
                    "0::/system.slice/containerd.service/kubepods-burstable-pod{underscored}.slice:cri-containerd:{ID}"
                ),
                Some(ID),
                Some(UID),
            ),
            (
                format!(
                    "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{underscored}.slice/cri-containerd-{ID}.scope"
                ),
                Some(ID),
                Some(UID),
            ),
            (format!("9:cpu:/ecs/0123456789abcdef0123456789abcdef/{ID}"), Some(ID), None),
            (
                "9:cpu:/ecs/447438d1540544ad918be1a4c4ea3bf8/447438d1540544ad918be1a4c4ea3bf8-2379821447".to_owned(),
                Some("447438d1540544ad918be1a4c4ea3bf8-2379821447"),
                None,
            ),
            ("0::/user.slice/user-1000.slice/session-3.scope".to_owned(), None, None),
            ("0::/system.slice/nginx.service".to_owned(), None, None),
            ("4:memory:/service/1591ef2198a49e3d3b9cca6db3f06154\n0::/".to_owned(), None, None),
            (format!("0::/docker/{}", ID.to_uppercase()), None, None),
            ("0::/kubepods/podinfo/x".to_owned(), None, None),
            ("0::/".to_owned(), None, None),
            (":::\n0:\n\u{0}".to_owned(), None, None),
            (String::new(), None, None),
        ];
        for (text, id, uid) in cases {
            let expected = Container { id: id.map(str::to_owned), pod_uid: uid.map(str::to_owned) };
            assert_eq!(Container::from_cgroup(&text), expected, "{text}");
        }
    }

    #[test]
    fn containers_in_mounts() {
        let line =
            |root: String, point: &str| format!("36 35 98:0 {root} {point} rw,noatime master:1 - ext3 /dev/root rw\n");
        let docker = line(format!("/var/lib/docker/containers/{ID}/hostname"), "/etc/hostname");
        let apart = line(format!("/lib/docker/containers/{ID}/resolv.conf"), "/etc/resolv.conf");
        let podman = line(format!("/containers/storage/overlay-containers/{ID}/userdata/hosts"), "/etc/hosts");
        let elsewhere = line(format!("/var/lib/docker/containers/{ID}/mounts/shm"), "/dev/shm");
        let kubelet = line(format!("/var/lib/kubelet/pods/{UID}/etc-hosts"), "/etc/hosts");
        let sandbox =
            line(format!("/var/lib/containers/storage/overlay-containers/{ID}/userdata/hostname"), "/etc/hostname");
        let cases = [
            (docker, Some(ID), None),
            (apart, Some(ID), None),
            (podman, Some(ID), None),
            (elsewhere, None, None),
            (format!("{sandbox}{kubelet}"), None, Some(UID)),
            ("garbage\n1 2 3\n".to_owned(), None, None),
        ];
        for (text, id, uid) in cases {
            let expected = Container { id: id.map(str::to_owned), pod_uid: uid.map(str::to_owned) };
            assert_eq!(Container::default().or_mounts(&text), expected, "{text}");
        }
    }

    #[test]
    fn only_a_root_hides_a_container() {
        assert!(Container::hidden("0::/"));
        assert!(Container::hidden("5:cpu:/\n0::/"));
        assert!(!Container::hidden("0::/system.slice/nginx.service"));
        assert!(!Container::hidden(&format!("1:cpu:/docker/{ID}\n0::/")));
    }
}
