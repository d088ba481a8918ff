//! Kubernetes' words: the CRI plugin of containerd by its socket, its runtime class the shim under test, and the stock
//! shim with the runtime under test.

use integration::containerd::{Containerd, Through};
use integration::proto::{Fields, Message};
use integration::ttrpc::Refusal;
use integration::websocket::{Channels, RESIZE, STATUS, STDERR, STDIN, STDOUT};
use integration::{call, eventually, grpc, image, runtime, through_each_shim};
use serde_json::{Value, json};

/// Of busybox; it is the pod's first process too.
const IMAGE: &str = "tare.test/box:1";
const RUNNING: u64 = 1;
const EXITED: u64 = 2;
/// The namespaces of the node: a pod with a network of its own would need CNI.
const NODE: u64 = 2;

struct Cri {
    containerd: Containerd,
}

impl Cri {
    fn start(through: Through) -> Self {
        let class = match through {
            Through::UnderTest => "runtime_type = \"io.containerd.judged.v2\"".to_owned(),
            Through::Stock => format!(
                "runtime_type = \"io.containerd.runc.v2\"\n{CLASS}.options]\nBinaryName = {:?}",
                runtime::path()
            ),
        };
        let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
        let config = format!(
            "[{cri}]\nsandbox_image = \"{IMAGE}\"\nrestrict_oom_score_adj = true\ndisable_apparmor = true\n\
             tolerate_missing_hugetlb_controller = true\nstream_server_address = \"127.0.0.1\"\nstream_server_port = \"0\"\n\
             [{cri}.cni]\nbin_dir = \"$DIR/cni\"\nconf_dir = \"$DIR/cni\"\n\
             [{cri}.containerd]\ndefault_runtime_name = \"judged\"\n\
             {CLASS}]\n{class}\n",
        );
        let containerd = Containerd::configured(through, &config);
        let archive = image::archive(containerd.sandbox.dir(), &containerd.rootfs, IMAGE);
        let mut import = containerd.command(&["--namespace", "k8s.io", "image", "import"]);
        call(import.arg(archive)).ok();
        let cri = Self { containerd };
        let asked = Message::new().message(1, &Message::new().bytes(1, IMAGE));
        eventually("the image is there", || {
            let status = grpc::call(&cri.containerd.socket(), "/runtime.v1.ImageService/ImageStatus", &asked);
            status.is_ok_and(|status| !status.message(1).is_empty()).then_some(())
        });
        cri
    }

    #[track_caller]
    fn try_call(&self, method: &str, request: &Message) -> Result<Fields, Refusal> {
        grpc::call(&self.containerd.socket(), &format!("/runtime.v1.RuntimeService/{method}"), request)
    }

    #[track_caller]
    fn call(&self, method: &str, request: &Message) -> Fields {
        self.try_call(method, request).unwrap_or_else(|refusal| panic!("{method}: {refusal:?}"))
    }

    /// A request that has only an id.
    fn of(id: &str) -> Message {
        Message::new().bytes(1, id)
    }

    fn pod_config(&self) -> Message {
        let namespaces = Message::new().number(1, NODE);
        let linux = Message::new()
            .bytes(1, &self.containerd.sandbox.cgroup)
            .message(2, &Message::new().message(1, &namespaces));
        Message::new()
            .message(1, &Message::new().bytes(1, "pod").bytes(2, "uid").bytes(3, "default"))
            .bytes(3, self.containerd.sandbox.path("pod-logs").to_string_lossy().as_bytes())
            .message(8, &linux)
    }

    fn run_pod(&self) -> String {
        self.call("RunPodSandbox", &Message::new().message(1, &self.pod_config())).text(1)
    }

    /// A container of the pod, started.
    fn run(&self, pod: &str, name: &str, script: &str, memory: u64) -> String {
        let resources = Message::new().number(4, memory);
        let security = Message::new().message(3, &Message::new().number(1, NODE));
        let linux = Message::new().message(1, &resources).message(2, &security);
        let config = Message::new()
            .message(1, &Message::new().bytes(1, name))
            .message(2, &Message::new().bytes(1, IMAGE))
            .bytes(3, "sh")
            .bytes(3, "-c")
            .bytes(3, script)
            .bytes(11, format!("{name}.log"))
            .message(15, &linux);
        let request = Message::new().bytes(1, pod).message(2, &config).message(3, &self.pod_config());
        let id = self.call("CreateContainer", &request).text(1);
        self.call("StartContainer", &Self::of(&id));
        id
    }

    fn status(&self, id: &str) -> Fields {
        self.call("ContainerStatus", &Self::of(id)).message(1)
    }

    fn exited(&self, id: &str) -> Fields {
        eventually("the container has ended", || {
            let status = self.status(id);
            (status.number(3) == EXITED).then_some(status)
        })
    }

    /// Opens the stream that `kubectl exec` would.
    fn exec(&self, id: &str, script: &str, tty: bool) -> Channels {
        let words = Self::of(id).bytes(2, "sh").bytes(2, "-c").bytes(2, script);
        let request = words.number(3, tty.into()).number(4, 1).number(5, 1).number(6, (!tty).into());
        let url = self.call("Exec", &request).text(1);
        let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url:?}"));
        let (address, path) = rest.split_once('/').expect("a path");
        Channels::open(self.containerd.sandbox.connect(address), &format!("/{path}"))
    }

    fn remove(&self, pod: &str) {
        self.call("StopPodSandbox", &Self::of(pod));
        self.call("RemovePodSandbox", &Self::of(pod));
        eventually("no shim is left", || self.containerd.shims().is_empty().then_some(()));
    }
}

const CLASS: &str = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.judged";

through_each_shim! {
    fn a_pod_of_two_containers_has_one_shim(cri: Cri) {
        let pod = cri.run_pod();
        let ready = cri.call("PodSandboxStatus", &Cri::of(&pod)).message(1);
        assert_eq!(ready.number(3), 0, "ready: {ready:?}");
        let containers = ["one", "two"].map(|name| cri.run(&pod, name, "echo from $HOSTNAME; exec sleep 1000", 0));
        for id in &containers {
            assert_eq!(cri.status(id).number(3), RUNNING);
        }
        let shims = cri.containerd.shims();
        assert_eq!(shims.len(), 1, "{shims:?}");
        assert_eq!(shims[0].1, pod);
        cri.call("StopContainer", &Cri::of(&containers[0]));
        assert_eq!(cri.exited(&containers[0]).number(7), 137);
        assert_eq!(cri.status(&containers[1]).number(3), RUNNING);
        cri.call("RemoveContainer", &Cri::of(&containers[0]));
        cri.remove(&pod);
        let pods = cri.call("ListPodSandbox", &Message::new());
        assert!(pods.is_empty(), "{pods:?}");
    }
}

through_each_shim! {
    fn exec_sync_and_by_a_stream(cri: Cri) {
        let pod = cri.run_pod();
        let id = cri.run(&pod, "one", "exec sleep 1000", 0);
        let sync = Cri::of(&id).bytes(2, "sh").bytes(2, "-c").bytes(2, "echo out; echo err >&2; exit 3").number(3, 20);
        let answer = cri.call("ExecSync", &sync);
        assert_eq!((answer.text(1).as_str(), answer.text(2).as_str(), answer.number(3)), ("out\n", "err\n", 3));
        let missing = cri.try_call("ExecSync", &Cri::of(&id).bytes(2, "/no/such/program").number(3, 20));
        let missing = missing.expect_err("there is no such program");
        assert!(missing.message.contains("no such file or directory"), "{missing:?}");

        let mut stream = cri.exec(&id, "read line; echo got $line; echo err >&2; exit 4", false);
        stream.send(STDIN, "word\n");
        stream.to_the_end();
        assert_eq!((stream.text(STDOUT).as_str(), stream.text(STDERR).as_str()), ("got word\n", "err\n"));
        let status: Value = serde_json::from_str(&stream.text(STATUS)).expect("a status");
        assert_eq!(status["details"]["causes"][0]["message"], "4", "{status}");

        let mut terminal = cri.exec(&id, "tty; until stty size | grep -q '40 100'; do sleep 0.05; done; read line; stty size; echo got $line", true);
        terminal.send(RESIZE, &json!({ "Width": 100, "Height": 40 }).to_string());
        terminal.send(STDIN, "word\n");
        terminal.to_the_end();
        let said = terminal.text(STDOUT).replace('\r', "");
        assert!(said.contains("/dev/pts/") && said.ends_with("40 100\ngot word\n"), "{said:?}");
        assert!(terminal.text(STATUS).contains("Success"), "{}", terminal.text(STATUS));
        cri.remove(&pod);
    }
}

through_each_shim! {
    fn a_timeout_ends_an_exec(cri: Cri) {
        let pod = cri.run_pod();
        let id = cri.run(&pod, "one", "exec sleep 1000", 0);
        let slow = Cri::of(&id).bytes(2, "sleep").bytes(2, "1000").number(3, 1);
        let refusal = cri.try_call("ExecSync", &slow).expect_err("it takes too long");
        assert!(refusal.message.contains("timeout 1s exceeded"), "{refusal:?}");
        assert_eq!(cri.status(&id).number(3), RUNNING);
        cri.remove(&pod);
    }
}

through_each_shim! {
    fn logs_and_statistics(cri: Cri) {
        let pod = cri.run_pod();
        let id = cri.run(&pod, "one", "seq 1 1000; echo err >&2; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 1000", 0);
        let log = cri.containerd.sandbox.path("pod-logs/one.log");
        let lines = eventually("the log", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            (text.lines().count() >= 1001).then_some(text)
        });
        // Time, stream, F for a whole line, text.
        let stream = |name: &str| -> Vec<String> {
            let words = lines.lines().map(|line| line.splitn(4, ' ').collect::<Vec<_>>());
            words.filter(|words| words[1] == name && words[2] == "F").map(|words| words[3].to_owned()).collect()
        };
        assert_eq!(stream("stdout"), (1..=1000).map(|line| line.to_string()).collect::<Vec<_>>());
        assert_eq!(stream("stderr"), ["err"]);
        let stats = eventually("statistics of the processor", || {
            let stats = cri.call("ContainerStats", &Cri::of(&id)).message(1);
            (stats.message(2).message(2).number(1) > 0).then_some(stats)
        });
        assert_eq!(stats.message(1).text(1), id);
        assert!(stats.message(3).message(2).number(1) > 0, "working set: {stats:?}");
        cri.remove(&pod);
    }
}

through_each_shim! {
    fn want_of_memory_is_reported(cri: Cri) {
        let pod = cri.run_pod();
        let id = cri.run(&pod, "greedy", "a=x; while true; do a=$a$a; done", 16 << 20);
        let status = cri.exited(&id);
        assert_eq!(status.number(7), 137, "{status:?}");
        // The event may come after the end; containerd's own shim forgets it at times when the end overtakes it.
        let forgotten = |reason: &str| cri.containerd.through == Through::Stock && reason == "Error";
        eventually("the reason", || {
            let reason = cri.status(&id).text(10);
            (reason == "OOMKilled" || forgotten(&reason)).then_some(())
        });
        cri.remove(&pod);
    }
}

through_each_shim! {
    fn a_program_that_is_not_there_is_named(cri: Cri) {
        let pod = cri.run_pod();
        let config = Message::new()
            .message(1, &Message::new().bytes(1, "wrong"))
            .message(2, &Message::new().bytes(1, IMAGE))
            .bytes(3, "/no/such/program");
        let request = Message::new().bytes(1, &pod).message(2, &config).message(3, &cri.pod_config());
        let id = cri.call("CreateContainer", &request).text(1);
        let refusal = cri.try_call("StartContainer", &Cri::of(&id)).expect_err("there is no such program");
        assert!(refusal.message.contains("/no/such/program"), "{refusal:?}");
        assert!(refusal.message.contains("no such file or directory"), "{refusal:?}");
        // kubelet shows these words as the container's state.
        assert_eq!(cri.exited(&id).text(10), "StartError");
        cri.remove(&pod);
    }
}
