//! The class of the packets that are sent, and their priority on each interface. v1 alone has them.
//! <https://docs.kernel.org/admin-guide/cgroup-v1/net_cls.html>,
//! <https://docs.kernel.org/admin-guide/cgroup-v1/net_prio.html>

use super::Write;
use crate::config::Network;

/// 0 is no class, and what engines send when they set none.
pub(in super::super) fn net_cls(network: &Network) -> Vec<Write> {
    let write = |class| Write::new("net_cls.classid", class).default_if(class == 0);
    network.class_id.map(write).into_iter().collect()
}

pub(in super::super) fn net_prio(network: &Network) -> Vec<Write> {
    let write = |name: &str, priority: u32| {
        Write::new("net_prio.ifpriomap", format!("{name} {priority}")).default_if(priority == 0)
    };
    network.priorities.iter().map(|interface| write(&interface.name, interface.priority)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::show;
    use super::*;
    use crate::config::InterfacePriority;

    #[test]
    fn classes_and_priorities() {
        let priority = |name: &str, priority| InterfacePriority { name: name.into(), priority };
        let network = Network {
            class_id: Some(0x0010_0001),
            priorities: vec![priority("eth0", 500), priority("lo", 0)],
        };
        assert_eq!(show(&net_cls(&network)), ["net_cls.classid=1048577"]);
        assert_eq!(show(&net_prio(&network)), ["net_prio.ifpriomap=eth0 500", "net_prio.ifpriomap=lo 0?"]);
        let unset = Network { class_id: Some(0), priorities: vec![] };
        assert_eq!(show(&net_cls(&unset)), ["net_cls.classid=0?"]);
        assert_eq!(net_cls(&Network::default()), []);
    }
}
