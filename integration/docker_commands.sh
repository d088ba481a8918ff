#!/bin/bash
# The commands of a Docker user - images, builds with each instruction of a Dockerfile, registries,
# volumes, networks, run, exec, attach, logs, limits - through a real dockerd whose containers are
# started by a chosen runtime.
#
#   docker_commands.sh --runtime PATH [--shim NAME|PATH] [--hide-cgroup2] [--only REGEX]
#                      [--engines DIR] [--list] [--keep] [--cache DIR] [--work DIR]
#
#   --runtime PATH   runc-compatible binary, becomes dockerd's default runtime "alt"
#   --shim NAME      containerd-shim-NAME-v2 (looked up on PATH), or the program PATH, in place of
#                    containerd-shim-runc-v2.  Docker 20.10 knows no shim by name, so the
#                    binary is put first on dockerd's PATH under the name that containerd looks for.
#   --engines DIR    Docker, containerd and all other programs from another Debian's root file
#                    system (integration/engines.sh); its registry and client come from there too
#   --hide-cgroup2   hide /sys/fs/cgroup/unified in the private mount namespace
#                    (crun 1.8.1 refuses a host with both cgroup versions)
#   --only REGEX     run only the cases whose name matches
#   --list           print the cases, each with what it shows
#   --keep           leave the work directory behind (logs in WORK/log/NAME)
#
# Prints "ok NAME" or "FAIL NAME: why" per case, then "N passed, M failed"; ends with 0 only if
# nothing failed. It is the root of tests/docker.rs.
#
# Everything happens inside private mount, network and pid namespaces: when this script ends,
# however it ends, the kernel removes the daemons, the containers, the mounts, the bridges and the
# iptables rules. The cgroups and the work directory are removed after that.
#
# Needs what `integration/install.sh engines` installs; git for one half of one case.

# Cases are dense on purpose, one line a step. Ids and option lists are words (SC2046, SC2086);
# single quotes hold scripts for the container's shell (SC2016); `a && b || die` is meant as it is
# read (SC2015); Dockerfiles are written by printf with the variable in the format (SC2059).
# shellcheck disable=SC2015,SC2016,SC2046,SC2059,SC2086
set -u
SELF=$(readlink -f "$0")
if [ -z "${CMD_INNER:-}" ]; then   # the inner instance gets all of these by environment
RUNTIME='' SHIM='' ENGINES='' HIDE=0 ONLY=. KEEP=0 LIST=0 WORK=''
CACHE=/var/tmp/docker-commands-cache
DOCKER=/usr/bin/docker            # Debian's client, not another one found on PATH
PY=/usr/bin/python3
while [ $# -gt 0 ]; do
  case $1 in
    --runtime) RUNTIME=$2; shift 2;;
    --shim) SHIM=$2; shift 2;;
    --engines) ENGINES=$2; shift 2;;
    --hide-cgroup2) HIDE=1; shift;;
    --only) ONLY=$2; shift 2;;
    --cache) CACHE=$2; shift 2;;
    --work) WORK=$2; shift 2;;
    --keep) KEEP=1; shift;;
    --list) LIST=1; shift;;
    *) echo "unknown argument: $1" >&2; exit 2;;
  esac
done
fi

# ---------------------------------------------------------------- outer part ----
if [ "${LIST:-0}" = 1 ]; then
  sed -nE 's/^t_([a-z0-9_]+)\(\) *\{ *(# *(.*))?/\1\t\3/p' "$SELF" |
    awk -F '\t' -v only="$ONLY" '$1 ~ only'
  exit 0
fi

make_cache() {   # a Debian root file system and the .debs of nginx; needs apt, once
  [ -f "$CACHE/ubuntu.tar" ] && [ -d "$CACHE/debs" ] && return
  echo "# building $CACHE with mmdebstrap" >&2
  rm -rf "$CACHE.new"; mkdir -p "$CACHE.new/debs"
  mmdebstrap --quiet --variant=minbase --include=procps,iputils-ping \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='chroot "$1" apt-get -qq -y --no-install-recommends -d install nginx iproute2' \
    --customize-hook="sync-out /var/cache/apt/archives $CACHE.new/debs" \
    --customize-hook='printf "#!/bin/sh\nexit 101\n" > "$1/usr/sbin/policy-rc.d"; chmod 755 "$1/usr/sbin/policy-rc.d"' \
    --customize-hook='rm -f "$1"/etc/apt/sources.list.d/*; echo "deb [trusted=yes] http://172.17.0.1:8000/debs ./" > "$1/etc/apt/sources.list"' \
    --customize-hook='echo "APT::Install-Recommends \"false\";" > "$1/etc/apt/apt.conf.d/99norec"' \
    bookworm "$CACHE.new/ubuntu.tar" >&2 || exit 1
  local f
  for f in "$CACHE.new"/debs/*.deb; do mv "$f" "${f//%3a/_}" 2>/dev/null; done
  rm -rf "$CACHE.new/debs/partial" "$CACHE.new/debs/lock"
  ( cd "$CACHE.new/debs" && for f in *.deb; do
      dpkg-deb -f "$f"
      printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$f" "$(stat -c%s "$f")" "$(sha256sum < "$f" | cut -d' ' -f1)"
    done > Packages )
  rm -rf "$CACHE"; mv "$CACHE.new" "$CACHE"
}

if [ -z "${CMD_INNER:-}" ]; then
  [ "$(id -u)" = 0 ] || { echo "must be root" >&2; exit 2; }
  [ -n "$RUNTIME" ] || { echo "--runtime PATH is needed" >&2; exit 2; }
  RUNTIME=$(readlink -f "$(command -v "$RUNTIME")") || { echo "no such runtime" >&2; exit 2; }
  case $SHIM in */*) ;; *) SHIM=containerd-shim-${SHIM:-runc}-v2;; esac
  SHIMBIN=$(readlink -f "$(command -v "$SHIM")") || { echo "no such shim: $SHIM" >&2; exit 2; }
  for t in dockerd "$DOCKER" docker-registry busybox mmdebstrap curl "$PY" ip iptables unshare setpriv; do
    command -v "$t" >/dev/null || { echo "missing: $t" >&2; exit 2; }
  done
  make_cache
  if [ -n "$WORK" ]; then mkdir -p "$WORK"; else WORK=$(mktemp -d /tmp/dockercmd.XXXXXX); fi
  chmod 755 "$WORK"
  CGP=/dockercmd-$$
  OPTC=$(test -e /opt/containerd; echo $?)       # containerd makes /opt/containerd
  export CMD_INNER=1 RUNTIME SHIM SHIMBIN ENGINES HIDE ONLY KEEP CACHE WORK CGP DOCKER PY
  unshare --net --mount --pid --fork --kill-child --mount-proc bash "$SELF" &
  child=$!
  trap 'kill -KILL $child 2>/dev/null' INT TERM HUP   # unshare ignores TERM; --kill-child ends the rest
  wait $child; rc=$?
  while kill -0 $child 2>/dev/null; do wait $child; rc=$?; done
  for d in /sys/fs/cgroup/*"$CGP" /sys/fs/cgroup"$CGP"; do   # only the cgroups made here
    [ -d "$d" ] && find "$d" -depth -type d -exec rmdir {} + 2>/dev/null
  done
  [ "$OPTC" = 0 ] || find /opt/containerd -depth -type d -empty -delete 2>/dev/null
  if [ "$KEEP" = 1 ]; then echo "# kept: $WORK" >&2
  else rm -rf --one-file-system "$WORK"; fi
  exit $rc
fi

# ---------------------------------------------------------------- inner part ----
# Here we are pid 1 of our own pid namespace; CMD_INNER's variables came by environment.
trap 'exit 130' INT TERM
: "${WORK:?}" "${RUNTIME:?}" "${SHIMBIN:?}" "${CGP:?}" "${CACHE:?}"
[ $$ = 1 ] && [ -d "$WORK" ] || { echo "not in a pid namespace of its own" >&2; exit 2; }
export HOME=$WORK/home DOCKER_HOST=unix://$WORK/docker.sock DOCKER_BUILDKIT=0
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=xterm LC_ALL=C.UTF-8
unset DOCKER_CONTEXT DOCKER_CONFIG http_proxy https_proxy HTTP_PROXY HTTPS_PROXY
mkdir -p "$HOME" "$WORK"/{log,www,bin,hub,exec,data,tmp}
[ -z "$ENGINES" ] || mount --rbind "$ENGINES/usr" /usr || exit 2
for m in /run /etc/docker; do mount -t tmpfs -o mode=755 tmpfs $m || exit 2; done
[ "$HIDE" = 1 ] && [ -d /sys/fs/cgroup/unified ] && mount -t tmpfs -o size=16m,mode=755 tmpfs /sys/fs/cgroup/unified

# helper.py: pty driver and the fake index of `docker search`
cat > "$WORK/helper.py" <<'PYEOF'
import fcntl, http.server, json, os, pty, re, select, struct, sys, termios, time, urllib.parse

def setsize(fd, text):
    rows, cols = map(int, text.split('x'))
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', rows, cols, 0, 0))

def drive(argv):
    """drive STEP... -- CMD...   steps: size:RxC expect:REGEX send:LINE key:^D sleep:S
    Runs CMD on a new pty, prints all its output; exit status is CMD's, 99 if a step times out."""
    i = argv.index('--'); steps, cmd = argv[:i], argv[i + 1:]
    size = '24x80'
    if steps and steps[0].startswith('size:'): size = steps.pop(0)[5:]
    pid, fd = pty.fork()
    if pid == 0:
        setsize(0, size); os.execvp(cmd[0], cmd)
    buf, pos, eof = '', 0, False
    def fill(timeout):
        nonlocal buf, eof
        if eof or not select.select([fd], [], [], timeout)[0]: return False
        try: data = os.read(fd, 65536)
        except OSError: data = b''
        if not data: eof = True; return False
        buf += data.decode('utf-8', 'replace'); return True
    def fail(why):
        print(buf); print('PTY: ' + why + ' (was: ' + ' '.join(cmd) + ')', file=sys.stderr)
        try: os.kill(pid, 9)
        except OSError: pass
        sys.exit(99)
    for step in steps:
        kind, arg = step.split(':', 1)
        if kind == 'expect':
            end = time.time() + 20
            while True:
                m = re.search(arg, buf[pos:])
                if m: pos += m.end(); break
                if eof or time.time() > end: fail('never saw /' + arg + '/')
                fill(0.2)
        elif kind == 'send': os.write(fd, arg.encode() + b'\n')
        elif kind == 'key': os.write(fd, bytes([ord(arg[1]) & 31]))
        elif kind == 'size': setsize(fd, arg); os.kill(pid, 28)
        elif kind == 'sleep':
            end = time.time() + float(arg)
            while time.time() < end: fill(0.05)
    end = time.time() + 20
    while not eof:
        fill(0.2)
        if time.time() > end: fail('still running after the last step')
    _, status = os.waitpid(pid, 0)
    print(buf); sys.exit(os.waitstatus_to_exitcode(status) & 255)

class Index(http.server.BaseHTTPRequestHandler):   # just enough of registry v1 for `docker search`
    ALL = [('nginx', 'Official build of Nginx.', 4539, True), ('jwilder/nginx-proxy', 'Automated proxy', 856, False),
           ('centos', 'The official build of CentOS.', 6449, True)]
    def do_GET(self):
        u = urllib.parse.urlparse(self.path); body = {}
        if u.path.endswith('/search'):
            q = urllib.parse.parse_qs(u.query)['q'][0]
            rows = [dict(name=n, description=d, star_count=s, is_official=o, is_automated=False, is_trusted=False)
                    for n, d, s, o in self.ALL if q in n]
            body = dict(query=q, num_results=len(rows), results=rows)
        data = json.dumps(body).encode()
        self.send_response(200); self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(data))); self.end_headers(); self.wfile.write(data)

if sys.argv[1] == 'drive': drive(sys.argv[2:])
if sys.argv[1] == 'index': http.server.HTTPServer(('127.0.0.1', 5003), Index).serve_forever()
PYEOF
drive() { $PY "$WORK/helper.py" drive "$@"; }

# ---- assertions: each ends the case (a subshell) with a reason -----------------
die()   { printf '%s' "$*" | tr '\n' ' ' | cut -c1-400 > "$WORK/why"; exit 1; }
eq()    { [ "$1" = "$2" ] || die "${3:-value} is '$1', wanted '$2'"; }
ne()    { [ "$1" != "$2" ] || die "${3:-value} is '$1', should differ"; }
has()   { case $1 in *"$2"*) ;; *) die "'$2' not in: $1";; esac; }
lacks() { case $1 in *"$2"*) die "'$2' must not be in: $1";; esac; }
hasre() { printf '%s\n' "$1" | grep -Eq -- "$2" || die "/$2/ not in: $1"; }
fails() { if OUT=$("$@" 2>&1); then die "should have failed: $* (said: $OUT)"; fi; }
wait_for() { local n=$(($1 * 10)); shift; while ! "$@" >/dev/null 2>&1; do n=$((n - 1)); [ $n -gt 0 ] || return 1; sleep 0.1; done; }
docker() { timeout -k 5 "${DTIMEOUT:-60}" "$DOCKER" "$@"; }
state() { docker inspect -f "{{.State.$1}}" "$2"; }
running() { [ "$(state Running "$1")" = true ]; }
stopped() { [ "$(state Running "$1")" = false ]; }
absent() { ! "$DOCKER" inspect "$1" >/dev/null 2>&1; }
logged() { docker logs "$1" 2>&1 | grep -q -- "$2"; }
http() { curl -sS --max-time 5 --retry 20 --retry-all-errors --retry-delay 0 --retry-max-time 10 "$@"; }
imgid() { docker image inspect -f '{{.Id}}' "$1"; }
ctx() { rm -rf "$WORK/ctx"; mkdir -p "$WORK/ctx"; cd "$WORK/ctx"; }
outside() { nsenter -t "$OUTSIDE" -n "$@"; }         # another host on the wire
loop='while true; do echo hello world; sleep 0.2; done'

start_dockerd() {   # start_dockerd [extra flags]
  local shimdir=$WORK/shim
  mkdir -p "$shimdir"; ln -sf "$SHIMBIN" "$shimdir/containerd-shim-runc-v2"
  PATH=$shimdir:$PATH dockerd --config-file "$WORK/daemon.json" "$@" >> "$WORK/log/dockerd" 2>&1 &
  wait_for 30 "$DOCKER" version || { tail -5 "$WORK/log/dockerd" >&2; return 1; }
}
stop_dockerd() { local p; p=$(cat "$WORK/dockerd.pid") && kill "$p" && wait_for 30 eval "! kill -0 $p"; }

setup() {
  cat > "$WORK/daemon.json" <<E
{ "data-root": "$WORK/data", "exec-root": "$WORK/exec", "pidfile": "$WORK/dockerd.pid",
  "hosts": ["$DOCKER_HOST"], "group": "docker",
  "runtimes": { "alt": { "path": "$RUNTIME" } }, "default-runtime": "alt",
  "exec-opts": ["native.cgroupdriver=cgroupfs"], "cgroup-parent": "$CGP",
  "bip": "172.17.0.1/16", "registry-mirrors": ["http://127.0.0.1:5000"] }
E
  ip link set lo up
  # a second host, "outside", on the other end of a veth pair
  unshare --net sleep infinity & OUTSIDE=$!
  wait_for 10 eval '[ "$(readlink /proc/$OUTSIDE/ns/net)" != "$(readlink /proc/self/ns/net)" ]'
  ip link add up0 type veth peer name up1 && ip link set up1 netns "$OUTSIDE"
  ip addr add 198.51.100.1/24 dev up0; ip link set up0 up; ip route add default via 198.51.100.2
  outside ip addr add 198.51.100.2/24 dev up1; outside ip link set up1 up; outside ip link set lo up
  outside $PY -u -m http.server 8080 --directory "$WORK/www" > "$WORK/log/srv.outside" 2>&1 &
  # a web server for apt, `docker import URL` and `docker build URL`
  ln -s "$CACHE/debs" "$WORK/www/debs"; echo "hello from the web" > "$WORK/www/index.html"
  $PY -m http.server 8000 --directory "$WORK/www" > "$WORK/log/srv.www" 2>&1 &
  $PY "$WORK/helper.py" index > "$WORK/log/srv.index" 2>&1 &
  # Debian's docker-registry: 5000 stands in for Docker Hub (as its mirror), 5001 wants a password
  printf 'version: 0.1\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: "127.0.0.1:5000"}\n' "$WORK/hub" > "$WORK/hub.yml"
  printf 'version: 0.1\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: "127.0.0.1:5001"}\nauth: {htpasswd: {realm: test, path: %s}}\n' "$WORK/priv" "$WORK/htpasswd" > "$WORK/priv.yml"
  # bcrypt of "s3cret": newer Pythons have no crypt
  echo 'beginman:$2b$04$muohqCZmbKzehMY6TOuBZ.tlRaKwWf9BOYO8kp1g5yJWRbTaVciYC' > "$WORK/htpasswd"
  docker-registry serve "$WORK/hub.yml" > "$WORK/log/srv.hub" 2>&1 &
  docker-registry serve "$WORK/priv.yml" > "$WORK/log/srv.priv" 2>&1 &
  start_dockerd || return 1
  # fill the "hub"; none of this starts a container
  local bb=$WORK/bb a
  mkdir -p "$bb"/{bin,etc,tmp,root,home}; cp "$(command -v busybox)" "$bb/bin/busybox"
  for a in $(busybox --list); do [ "$a" = busybox ] || ln -s busybox "$bb/bin/$a"; done
  echo root:x:0:0:root:/root:/bin/sh > "$bb/etc/passwd"; echo root:x:0: > "$bb/etc/group"
  wait_for 10 curl -sf http://127.0.0.1:5000/v2/ || return 1
  local hub=127.0.0.1:5000/library
  tar -C "$bb" -c . | docker import -c 'CMD ["sh"]' - $hub/busybox:latest >/dev/null &&
  tar -C "$bb" -c . | docker import -c 'CMD ["/bin/echo","Hello from Docker!"]' - $hub/hello-world:latest >/dev/null &&
  docker import -c 'CMD ["/bin/bash"]' "$CACHE/ubuntu.tar" $hub/ubuntu:18.04 >/dev/null &&
  docker tag $hub/ubuntu:18.04 $hub/ubuntu:latest || return 1
  for a in busybox:latest hello-world:latest ubuntu:18.04 ubuntu:latest; do
    docker push -q $hub/$a >/dev/null || return 1; docker rmi $hub/$a >/dev/null
  done
  # the images most cases start from
  [ "$ONLY" = . ] || { docker pull -q busybox; docker pull -q ubuntu:18.04; docker pull -q ubuntu; } >/dev/null
}

clean() {   # leave no containers, volumes or networks to the next case
  local left; left=$(docker ps -aq) && [ -z "$left" ] || docker rm -fv $left >/dev/null 2>&1
  left=$(docker volume ls -q) && [ -z "$left" ] || docker volume rm -f $left >/dev/null 2>&1; docker network prune -f >/dev/null 2>&1
}

PASSED=0 FAILED=0
run_case() {
  local name=$1 rc why
  # with --only, make the images that cases left out would have made
  case $name in build_static_web|registry_private) ;; *)
    if declare -f "t_$name" | grep -q nginx && ! "$DOCKER" image inspect nginx >/dev/null 2>&1; then
      ( set -eE; t_build_static_web ) < /dev/null > "$WORK/log/fixture.nginx" 2>&1; clean; fi
    if [ "$name" = registry_host_network ] && ! "$DOCKER" image inspect registry >/dev/null 2>&1; then
      ( set -eE; t_registry_private ) < /dev/null > "$WORK/log/fixture.registry" 2>&1; clean; fi;;
  esac
  rm -f "$WORK/why"
  ( set -eE; cd "$WORK/tmp"; "t_$name" ) < /dev/null > "$WORK/log/$name" 2>&1
  rc=$?
  if [ $rc = 0 ]; then PASSED=$((PASSED + 1)); echo "ok $name"
  else
    FAILED=$((FAILED + 1))
    why=$(cat "$WORK/why" 2>/dev/null); [ -n "$why" ] || why="exit $rc: $(tail -n 2 "$WORK/log/$name" | tr '\n\r' '  ' | cut -c1-400)"
    echo "FAIL $name: $why"
  fi
  clean
}

# =================================================================================
# The cases.
# =================================================================================

# ---------------------------------------------------------------- the engine ----
t_version() {                       # docker version
  eq "$(docker version -f '{{.Server.Version}}')" "$(dockerd --version | sed -E 's/.*version ([^,]*),.*/\1/')" "server version"
  has "$(docker version)" "API version"
}
t_info() {                          # docker info, /etc/docker/daemon.json with registry-mirrors
  local o; o=$(docker info 2>/dev/null)
  has "$o" "Default Runtime: alt"; has "$o" "http://127.0.0.1:5000/"; has "$o" "Storage Driver: overlay2"
}
t_docker_group() {                  # the docker group may use the socket, others may not
  local g; g=$(getent group docker | cut -d: -f3)
  has "$(setpriv --reuid=65534 --regid=65534 --groups="$g" "$DOCKER" version)" "Server:"
  fails setpriv --reuid=65534 --regid=65534 --clear-groups "$DOCKER" version
  has "$OUT" "permission denied"
}

# ---------------------------------------------------------------- images: pull ----
t_pull_tag() {                      # docker pull ubuntu:18.04
  local o; o=$(docker pull ubuntu:18.04)
  has "$o" "18.04: Pulling from library/ubuntu"; has "$o" "Digest: sha256:"; has "$o" "docker.io/library/ubuntu:18.04"
  has "$o" "Downloaded newer image"; docker image inspect ubuntu:18.04 >/dev/null
}
t_pull_default_tag() {              # docker pull ubuntu
  has "$(docker pull ubuntu)" "Using default tag: latest"
  eq "$(imgid ubuntu:latest)" "$(imgid ubuntu:18.04)"
}
t_pull_full_name() {                # docker image pull docker.io/library/ubuntu:18.04
  has "$(docker image pull docker.io/library/ubuntu:18.04)" "Image is up to date"
}
t_run_pulls() {                     # docker run hello-world
  docker rmi -f hello-world >/dev/null 2>&1 || true
  local o; o=$(docker run --rm hello-world 2>&1)
  has "$o" "Unable to find image 'hello-world:latest' locally"; has "$o" "Hello from Docker!"
  docker pull -q busybox
}
t_search() {                        # docker search, --filter=stars=N
  local o; o=$(docker search 127.0.0.1:5003/nginx)
  has "$o" "Official build of Nginx."; has "$o" "jwilder/nginx-proxy"; lacks "$o" centos
  lacks "$(docker search --filter=stars=1000 127.0.0.1:5003/nginx)" jwilder
}

# ---------------------------------------------------------------- run: the basics ----
t_runtime_is_used() {               # the stand-in really starts the containers, through the chosen shim
  local id o; id=$(docker run -d busybox sleep 100)
  eq "$(docker inspect -f '{{.HostConfig.Runtime}}' $id)" alt
  o=$(cat "$WORK/exec/containerd/daemon/io.containerd.runtime.v2.task/moby/$id/options.json")
  has "$o" "\"$RUNTIME\""
  o=$(for p in /proc/[0-9]*; do tr '\0' ' ' < $p/cmdline 2>/dev/null | grep -q "containerd-shim.*$id" && stat -L -c %d:%i $p/exe; done; true)
  # A shim that has sealed its program shows no path, and the same file all the same.
  eq "$(echo "$o" | head -1)" "$(stat -L -c %d:%i "$SHIMBIN")" "shim"
}
t_run_echo() {                      # docker run ubuntu:18.04 /bin/echo 'Hello world'
  eq "$(docker run --rm ubuntu:18.04 /bin/echo 'Hello world')" "Hello world"
}
t_run_it_bash() {                   # docker run -it --rm ubuntu:18.04 bash
  local o; o=$(drive 'expect:root@[0-9a-f]{12}:/# ' 'send:tty; cat /etc/os-release | head -1' 'expect:/dev/pts/0' 'expect:PRETTY_NAME' 'send:exit 5' \
    -- $DOCKER run -it --rm --name itbash ubuntu:18.04 bash) && die "exit code lost" || eq $? 5 "exit code"
  absent itbash || die "--rm left the container"
}
t_run_t_i_ps() {                    # docker run -t -i ubuntu:18.04 /bin/bash; ps shows bash as pid 1
  local o; o=$(drive 'expect:# ' 'send:ps -o pid,comm' 'expect: 1 bash' 'expect: ps' 'expect:# ' 'send:exit' -- $DOCKER run -t -i ubuntu:18.04 /bin/bash)
  eq "$(echo "$o" | grep -cE '^ +[0-9]+ ')" 2 "processes in the container"
}
t_tty_size() {                      # the terminal has the size of the user's, and follows it
  drive size:33x101 'expect:# ' 'send:until stty size | grep "33 10[1]"; do sleep 0.1; done' 'expect:33 101' \
    'size:40x120' 'send:until stty size | grep "40 12[0]"; do sleep 0.1; done' 'expect:40 120' 'send:exit' \
    -- $DOCKER run -it --rm ubuntu:18.04 bash
}
t_ctrl_c() {                        # ^C in the terminal reaches the process
  local o rc=0
  o=$(drive 'expect:ready' 'key:^C' 'expect:GOT-INT' -- $DOCKER run -it --rm busybox sh -c 'trap "echo GOT-INT; exit 3" INT; echo ready; while :; do sleep 0.1; done') || rc=$?
  eq $rc 3 "exit code"
}
t_ctrl_d() {                        # ctrl-d ends the shell and with it the container
  drive 'expect:# ' 'key:^D' -- $DOCKER run -it --name ctrld ubuntu:18.04 bash
  eq "$(state Status ctrld)" exited
}
t_run_i_stdin() {                   # -i keeps stdin open
  eq "$(echo 'through stdin' | docker run -i --rm ubuntu:18.04 cat)" "through stdin"
  eq "$(head -c 3000000 /dev/zero | docker run -i --rm busybox wc -c)" 3000000 "bytes through stdin"
}
t_run_stderr() {                    # stdout and stderr stay apart without -t
  eq "$(docker run --rm busybox sh -c 'echo out; echo err >&2' 2>/dev/null)" out
  eq "$(docker run --rm busybox sh -c 'echo out; echo err >&2' 2>&1 >/dev/null)" err
}
t_run_exit_code() {                 # Exited (N)
  local rc=0; docker run --name ec busybox sh -c 'exit 7' || rc=$?
  eq $rc 7; has "$(docker ps -a --filter name=ec)" "Exited (7)"
}
t_run_no_such_command() {           # the error for a missing program is 127 and names it
  # the client makes 127 of "no such file or directory" or "executable file not found" (and
  # 126 of "permission denied") in the runtime's message, in lower case as runc writes it
  local rc=0 o; o=$(docker run --rm busybox /no/such/program 2>&1) || rc=$?
  has "$o" "no/such/program"; eq $rc 127 "exit code"
}
t_run_foreground_loop() {           # without -d the output comes to the host
  local o; o=$(timeout -s INT 6 $DOCKER run --rm --name fg ubuntu:18.04 /bin/sh -c "$loop") || true
  [ "$(echo "$o" | grep -c '^hello world$')" -ge 3 ] || die "got: $o"
  wait_for 15 absent fg || docker kill fg
}
t_run_detached_logs() {             # docker run -d, docker container ls, docker (container) logs
  local id; id=$(docker run -d ubuntu:18.04 /bin/sh -c "$loop")
  hasre "$id" '^[0-9a-f]{64}$'
  has "$(docker container ls)" "${id:0:12}"
  wait_for 5 logged $id 'hello world'; has "$(docker container logs ${id:0:6})" "hello world"
}
t_logs_follow() {                   # docker logs -f
  docker run -d --name lf busybox sh -c 'for i in 1 2 3 4 5; do echo line $i; sleep 0.3; done' >/dev/null
  eq "$(docker logs -f lf | tail -1)" "line 5"
}
t_run_rm() {                        # --rm removes, no --rm leaves an exited container
  docker run --rm --name gone busybox true; absent gone || die "still there"
  docker run --name stays busybox true; eq "$(state Status stays)" exited
}
t_name() {                          # --name, and a name can be used once
  docker run -d --name new_container busybox sleep 50; has "$(docker ps)" new_container
  fails docker run --name new_container busybox true; has "$OUT" "already in use"
}
t_ps() {                            # docker ps, ps -a, ps -l -q, ps -a -q
  local a b; a=$(docker run -d busybox true); docker wait $a >/dev/null; b=$(docker run -d busybox sleep 50)
  eq "$(docker ps -l -q)" "${b:0:12}"; eq "$(docker ps -q)" "${b:0:12}"; eq "$(docker ps -a -q | wc -l)" 2
  has "$(docker container ls -a)" "Exited (0)"
}

# ---------------------------------------------------------------- life cycle ----
t_stop_graceful() {                 # docker stop sends SIGTERM
  docker run -d --name st busybox sh -c 'trap "echo bye; exit 0" TERM; echo up; while :; do sleep 0.1; done'
  wait_for 5 logged st up; local t=$SECONDS; docker container stop st
  [ $((SECONDS - t)) -lt 6 ] || die "took $((SECONDS - t)) s"
  eq "$(state Status st)" exited; eq "$(state ExitCode st)" 0; has "$(docker logs st)" bye
}
t_stop_timeout() {                  # docker stop kills what will not stop
  docker run -d --name st busybox sleep 1000; docker stop -t 1 st; eq "$(state ExitCode st)" 137
}
t_exit_stops() {                    # the container ends with its process
  docker run -d --name ends busybox sleep 4; running ends; wait_for 15 stopped ends; eq "$(state Status ends)" exited
}
t_start_again() {                   # docker container start brings back a stopped one, with its files
  docker run --name again busybox sh -c 'echo x >> /runs; wc -l < /runs'
  docker container start again; docker wait again; eq "$(docker logs again | tail -1)" 2 "runs counted in the container layer"
  eq "$(docker start -a again)" 3
}
t_restart() {                       # docker container restart
  docker run -d --name rst busybox sleep 1000; local p1 p2; p1=$(state Pid rst)
  docker container restart -t 1 rst; p2=$(state Pid rst); running rst; ne "$p1" "$p2" pid; [ -d /proc/$p2 ] && [ ! -d /proc/$p1 ]
}
t_kill() {                          # SIGKILL; a chosen signal
  docker run -d --name kil busybox sleep 1000; docker kill kil; eq "$(state ExitCode kil)" 137
  docker run -d --name k2 busybox sh -c 'trap "echo usr1" USR1; echo up; while :; do sleep 0.1; done'
  wait_for 5 logged k2 up; docker kill -s USR1 k2; wait_for 5 logged k2 usr1; running k2
}
t_pause() {                         # containers can be paused
  docker run -d --name pau busybox sh -c 'while :; do echo tick; sleep 0.1; done'; wait_for 5 logged pau tick
  docker pause pau; eq "$(state Status pau)" paused; local a b; sleep 1; a=$(docker logs pau | wc -l); sleep 0.7; b=$(docker logs pau | wc -l)
  eq "$a" "$b" "lines while paused"; docker unpause pau
  wait_for 10 eval "[ \"\$(docker logs pau | wc -l)\" -gt $b ]" || die "still silent"
}
t_rm() {                            # docker rm; a running one only with -f
  docker run --name trusting_newton busybox true; eq "$(docker container rm trusting_newton)" trusting_newton; absent trusting_newton
  docker run -d --name live busybox sleep 100; local p; p=$(state Pid live)
  fails docker rm live; hasre "$OUT" "cannot remove a running container|container is running"
  docker rm -f live; absent live; [ ! -d /proc/$p ] || die "process survived"
}
t_container_prune() {               # docker container prune
  docker run -d --name live busybox sleep 100; docker run --name dead busybox true
  docker container prune -f; running live; absent dead || die "not pruned"
}
t_rm_all() {                        # docker rm $(docker ps -a -q)
  docker run busybox true; docker run busybox true; docker rm $(docker ps -a -q); eq "$(docker ps -aq)" ""
}
t_restart_policy() {                # services come back (--restart)
  docker run -d --restart=on-failure:2 --name rp busybox sh -c 'echo run; exit 1'
  wait_for 15 eval '[ "$(docker inspect -f "{{.RestartCount}}" rp)" = 2 ]'; wait_for 5 stopped rp
  eq "$(docker logs rp | grep -c run)" 3
}

# ---------------------------------------------------------------- entering ----
t_attach() {                        # docker run -dit; docker attach; exit stops the container
  local id; id=$(docker run -dit ubuntu)
  drive 'sleep:0.5' 'send:' "expect:root@${id:0:12}:/# " 'send:echo $((6*7))' 'expect:42' 'send:exit' -- $DOCKER attach ${id:0:4}
  wait_for 5 stopped $id
}
t_attach_output() {                 # attach shows what the process writes from now on
  docker run -d --name ao busybox sh -c "$loop"; sleep 0.5
  local o; o=$(timeout -s KILL 5 $DOCKER attach --no-stdin --sig-proxy=false ao || true); has "$o" "hello world"; running ao
}
t_exec_i() {                        # docker exec -i: no prompt, but the output
  docker run -dit --name ex ubuntu
  local o; o=$(printf 'ls /\nexit\n' | docker exec -i ex bash); has "$o" "boot"; has "$o" "etc"; lacks "$o" "root@"
}
t_exec_it() {                       # docker exec -it: a prompt, and exit does not stop the container
  local id; id=$(docker run -dit ubuntu)
  drive size:31x99 "expect:root@${id:0:12}:/# " 'send:until stty size | grep -q "31 9[9]"; do sleep 0.1; done; tty; stty size' 'expect:/dev/pts/' 'expect:31 99' 'send:exit' -- $DOCKER exec -it ${id:0:4} bash
  sleep 0.3; running $id
}
t_exec_exit_code() {                # docker exec returns the command's status
  docker run -d --name ex busybox sleep 100; local rc=0; docker exec ex sh -c 'exit 9' || rc=$?; eq $rc 9
  rc=0; docker exec ex /no/such 2>/dev/null || rc=$?; hasre "$rc" '^12[67]$'
}
t_exec_options() {                  # "several options can follow": -u -w -e -d
  docker run -d --name ex busybox sleep 100
  eq "$(docker exec -u 1234:56 -w /tmp -e A=b ex sh -c 'id -u; id -g; pwd; echo $A' | tr '\n' ' ')" "1234 56 /tmp b "
  docker exec -d ex touch /tmp/flag; wait_for 5 docker exec ex test -e /tmp/flag
}
t_nsenter() {                       # nsenter
  local id; id=$(docker run -d busybox sleep 100)
  eq "$(nsenter -t "$(state Pid $id)" -m -u -i -n -p /bin/hostname)" "${id:0:12}"
}
t_top() {                           # docker top
  local id o; id=$(docker run -d busybox sleep 4321); o=$(docker top $id)
  has "$o" "sleep 4321"; eq "$(echo "$o" | awk 'NR==2{print $2}')" "$(state Pid $id)"
}
t_inspect() {                       # docker inspect --format
  local id ip; id=$(docker run -d --name insp busybox sleep 100); ip=$(docker inspect --format='{{.NetworkSettings.IPAddress}}' insp)
  hasre "$ip" '^172\.17\.0\.[0-9]+$'; has "$(docker exec insp ip addr show eth0)" "$ip/16"
  has "$(docker inspect insp)" "\"Id\": \"$id\""; docker stats --no-stream --format '{{.MemUsage}}' insp | grep -q 'iB /'
}
t_diff() {                          # docker diff; copy on write leaves the image alone
  docker run --name df ubuntu sh -c 'echo x >> /etc/hostname2; echo y >> /etc/issue; rm /etc/debian_version'
  local o; o=$(docker diff df); has "$o" "A /etc/hostname2"; has "$o" "C /etc/issue"; has "$o" "D /etc/debian_version"
  docker run --rm ubuntu sh -c 'test -e /etc/debian_version && ! grep -q y$ /etc/issue && test ! -e /etc/hostname2'
}
t_container_layer() {               # the container's layer dies with it
  docker run --rm busybox sh -c 'echo lost > /file'; docker run --rm busybox sh -c 'test ! -e /file'
}

# ---------------------------------------------------------------- isolation ----
t_namespaces() {                    # own pid, net, ipc, mnt, uts namespaces; the user's is shared
  local n o; o=$(docker run --rm busybox sh -c 'for n in pid net ipc mnt uts user; do echo $n $(readlink /proc/self/ns/$n); done')
  for n in pid net ipc mnt uts; do ne "$(echo "$o" | sed -n "s/^$n //p")" "$(readlink /proc/self/ns/$n)" "$n namespace"; done
  eq "$(echo "$o" | sed -n 's/^user //p')" "$(readlink /proc/self/ns/user)" "user namespace"
}
t_hostname() {                      # root@ID: the host name is the short id
  local id; id=$(docker run -d busybox sleep 50); eq "$(docker exec $id hostname)" "${id:0:12}"; ne "${id:0:12}" "$(hostname)"
}
t_overlay() {                       # the root is an overlay
  hasre "$(docker run --rm busybox mount)" '^overlay on / type overlay \(rw'
}
t_memory_limit() {                  # memory limit
  eq "$(docker run --rm -m 64m busybox sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max')" 67108864
}
t_memory_oom() {                    # over the limit the process is killed, and docker hears of it
  # not pid 1 itself: docker loses the oom event when it comes after the exit event. All are small, so
  # the kernel is told which one to take.
  docker run --name oom -m 32m --memory-swap 32m ubuntu bash -c 'head -c 200000000 /dev/zero | (echo 1000 > /proc/self/oom_score_adj; exec tail -c 150000000) > /dev/null; echo status ${PIPESTATUS[1]}; sleep 1'
  has "$(docker logs oom)" "status 137"; eq "$(state OOMKilled oom)" true OOMKilled
}
t_cpus() {                          # which cpus, how much of them
  eq "$(docker run --rm --cpuset-cpus 0 busybox sed -n 's/^Cpus_allowed_list:\t//p' /proc/self/status)" 0
  hasre "$(docker run --rm --cpus 0.5 busybox sh -c 'cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max')" '^50000'
}
t_pids_limit() {                    # control groups
  local o; o=$(docker run --rm --pids-limit 10 busybox sh -c 'for i in $(seq 30); do sleep 3 & done; wait' 2>&1 || true); hasre "$o" "can't fork|Resource temporarily unavailable"
}
t_update() {                        # the limits of a running container can be changed
  docker run -d --name up -m 64m busybox sleep 100; docker update -m 128m --memory-swap 256m up
  eq "$(docker exec up sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max')" 134217728
}
t_capabilities_seccomp() {          # isolation: docker's default capabilities and seccomp filter
  local o; o=$(docker run --rm busybox cat /proc/self/status)
  hasre "$o" 'CapEff:.00000000a80425fb'; hasre "$o" 'Seccomp:.2'
  fails docker run --rm busybox mount -t tmpfs x /tmp; fails docker run --rm busybox hostname newname
}
t_masked_paths() {                  # isolation: /proc and /sys are partly hidden, partly read-only
  eq "$(docker run --rm busybox wc -c /proc/keys)" "0 /proc/keys"
  fails docker run --rm busybox sh -c 'echo 1 > /proc/sys/kernel/printk'; fails docker run --rm busybox sh -c 'd=/sys/fs/cgroup; [ ! -d $d/memory ] || d=$d/memory; mkdir $d/x'
}

# ---------------------------------------------------------------- building ----
t_build_static_web() {              # FROM MAINTAINER ENV RUN (both forms) EXPOSE; apt-get in a build
  ctx; cat > Dockerfile <<'E'
# Version 0.0.1
FROM ubuntu:latest
MAINTAINER Beginman "xinxinyu2011@163.com"
ENV REFRESHED_AT 2016-11-09
RUN apt-get update
RUN apt-get install -y nginx
RUN ["apt-get", "install", "-y", "iproute2"]
RUN mkdir -p /usr/share/nginx/html && sed -i 's#root /var/www/html#root /usr/share/nginx/html#' /etc/nginx/sites-available/default && ln -sf /dev/stdout /var/log/nginx/access.log
RUN echo 'Hi, I am in your container' \
	>/usr/share/nginx/html/index.html
# docker does not open the port by itself
EXPOSE 80
E
  local o; o=$(DTIMEOUT=240 docker build -t="beginman/static_web:v1" .)
  has "$o" "Sending build context to Docker daemon"; has "$o" "Successfully tagged beginman/static_web:v1"
  eq "$(docker inspect -f '{{.Author}}' beginman/static_web:v1)" 'Beginman "xinxinyu2011@163.com"'
  printf 'FROM beginman/static_web:v1\nCMD ["nginx", "-g", "daemon off;"]\n' | docker build -q -t nginx -
  docker tag nginx nginx:alpine
  docker run -d -p 80 --name static_web beginman/static_web:v1 nginx -g "daemon off;"
  eq "$(http http://$(docker port static_web 80 | head -1)/)" 'Hi, I am in your container'
}
t_build_run_nginx() {               # FROM nginx, RUN echo; docker build -t nginx:v3 .
  ctx; printf "FROM nginx\nRUN echo '<h1>Hello, Docker!</h1>' > /usr/share/nginx/html/index.html\n" > Dockerfile
  docker build -t nginx:v3 .; docker run -d -p 8081:80 nginx:v3; eq "$(http http://127.0.0.1:8081/)" '<h1>Hello, Docker!</h1>'
}
t_build_cache() {                   # Using cache; --no-cache; ENV REFRESHED_AT invalidates what follows
  ctx; printf 'FROM busybox\nENV REFRESHED_AT 2016-11-09\nRUN date +%%N > /stamp\n' > Dockerfile
  docker build -t cached . ; local a b; a=$(imgid cached); has "$(docker build -t cached .)" "Using cache"; eq "$(imgid cached)" "$a"
  docker build --no-cache -t cached .; b=$(imgid cached); ne "$a" "$b"
  sed -i s/-09/-10/ Dockerfile; lacks "$(docker build -t cached .)" "Using cache"
}
t_build_failed_step() {             # a failing step leaves the image before it to debug in
  ctx; printf 'FROM ubuntu\nRUN echo so-far > /so-far\nRUN false\n' > Dockerfile
  fails docker build -t nope .; has "$OUT" "returned a non-zero code: 1"; absent nope
  local last; last=$(echo "$OUT" | sed -nE 's/^ ---> ([0-9a-f]{12})$/\1/p' | tail -1)
  drive 'expect:# ' 'send:cat /so-far' 'expect:so-far\r' 'send:exit' -- $DOCKER run --rm -t -i $last /bin/bash
}
t_build_layers() {                  # every RUN is a layer; && makes one of many
  ctx; printf 'FROM busybox\nRUN touch /a\nRUN touch /b\nRUN touch /c\n' > Dockerfile; docker build -q -t many .
  printf 'FROM busybox\nRUN touch /a \\\n && touch /b \\\n && touch /c\n' > Dockerfile; docker build -q -t one .
  eq "$(docker inspect -f '{{len .RootFS.Layers}}' many)" 4; eq "$(docker inspect -f '{{len .RootFS.Layers}}' one)" 2
  eq "$(docker history -q many | wc -l)" 4; docker run --rm one ls /a /b /c
}
t_build_shell_exec_form() {         # RUN <command> and RUN ["program", "argument"]
  ctx; cat > Dockerfile <<'E'
FROM busybox
RUN X=shell; echo $X-form > /shell
RUN ["touch", "/exec $HOME"]
E
  docker build -q -t forms .; eq "$(docker run --rm forms cat /shell)" shell-form; docker run --rm forms test -e '/exec $HOME'
}
t_build_copy() {                    # COPY: several, wildcards, JSON form, relative to WORKDIR, metadata kept
  ctx; echo 1 > hom1.txt; echo 2 > hom22.txt; echo '{}' > package.json; chmod 640 package.json; touch -d 2001-02-03T04:05:06Z package.json
  printf 'FROM busybox\nCOPY hom* /mydir/\nCOPY hom?.txt /one/\nCOPY ["package.json", "hom1.txt", "/json/"]\nWORKDIR /app\nCOPY ./package.json ./sub/\n' > Dockerfile
  docker build -q -t copy .; eq "$(docker run --rm copy sh -c 'ls /mydir /one | tr "\n" " "')" "/mydir: hom1.txt hom22.txt  /one: hom1.txt "
  eq "$(docker run --rm copy stat -c '%a %Y %u' /app/sub/package.json)" "640 981173106 0"; docker run --rm copy ls /json/package.json /json/hom1.txt
}
t_build_context() {                 # nothing outside of the context can be copied
  ctx; echo s > "$WORK/secret"; printf 'FROM busybox\nCOPY ../secret /app\n' > Dockerfile; fails docker build .
  hasre "$OUT" "forbidden path|not found|no such file"
  printf "FROM busybox\nCOPY $WORK/secret /app\n" > Dockerfile; fails docker build .
}
t_build_dockerignore() {            # .dockerignore
  ctx; echo a > a.txt; echo b > b.log; printf '*.log\n' > .dockerignore; printf 'FROM busybox\nCOPY . /x\n' > Dockerfile
  docker build -q -t ign .; eq "$(docker run --rm ign ls /x | grep -c -e a.txt -e b.log)" 1
}
t_build_f() {                       # -f ../Dockerfile.php
  ctx; mkdir c; echo php > c/p; printf 'FROM busybox\nCOPY p /p\n' > Dockerfile.php; cd c; docker build -q -f ../Dockerfile.php -t php .; eq "$(docker run --rm php cat /p)" php
}
t_build_stdin() {                   # docker build -
  ctx; printf 'FROM busybox\nRUN echo stdin > /s\n' | docker build -q -t bs -; eq "$(docker run --rm bs cat /s)" stdin
  echo f > f; printf 'FROM busybox\nCOPY f /f\n' > Dockerfile; tar -c . | docker image build -q -t bt -; eq "$(docker run --rm bt cat /f)" f
}
t_build_url() {                     # docker build URL (a Dockerfile, a git repository)
  printf 'FROM busybox\nRUN echo url > /u\n' > "$WORK/www/Dockerfile.url"; docker build -q -t bu http://127.0.0.1:8000/Dockerfile.url; eq "$(docker run --rm bu cat /u)" url
  command -v git >/dev/null || { echo "no git: only the plain URL was tried"; return 0; }
  ctx; git init -q -b master .; printf 'FROM busybox\nCOPY g /g\n' > Dockerfile; echo git > g; git add .
  git -c user.name=x -c user.email=x@x commit -qm x; rm -rf "$WORK/www/repo.git"; git clone -q --bare . "$WORK/www/repo.git"; git -C "$WORK/www/repo.git" update-server-info
  docker build -q -t='bg' http://127.0.0.1:8000/repo.git#master; eq "$(docker run --rm bg cat /g)" git
}
t_build_add() {                     # ADD unpacks gzip, bzip2 and xz archives, and takes URLs
  ctx; mkdir d; echo in-tar > d/t; local z; for z in gz:z bz2:j xz:J; do tar -c${z#*:}f a.tar.${z%:*} d 2>/dev/null || tar -czf a.tar.${z%:*} d; done
  printf 'FROM busybox\nADD a.tar.gz /gz\nADD a.tar.bz2 /bz2/\nADD a.tar.xz /xz/\nADD http://127.0.0.1:8000/index.html /url/\nCOPY a.tar.gz /copied/\n' > Dockerfile
  docker build -q -t add .; eq "$(docker run --rm add cat /gz/d/t /bz2/d/t /xz/d/t /url/index.html | tr '\n' ' ')" "in-tar in-tar in-tar hello from the web "
  docker run --rm add test -f /copied/a.tar.gz
}
t_build_scratch() {                 # FROM scratch with one static program
  ctx; cp "$(command -v busybox)" echo; printf 'FROM scratch\nCOPY echo /echo\nCMD ["/echo", "from scratch"]\n' > Dockerfile
  docker build -q -t scr .; eq "$(docker run --rm scr)" "from scratch"; eq "$(docker export "$(docker create scr)" | tar -t | grep -c '^echo$')" 1
}
t_build_cmd() {                     # CMD, both forms; replaced by arguments
  ctx; printf 'FROM busybox\nCMD echo $HOME\n' > Dockerfile; docker build -q -t cs .; eq "$(docker run --rm cs)" /root
  printf 'FROM busybox\nCMD ["echo", "$HOME"]\n' > Dockerfile; docker build -q -t ce .; eq "$(docker run --rm ce)" '$HOME'; eq "$(docker run --rm ce echo other)" other
}
t_build_entrypoint() {              # ENTRYPOINT takes CMD or the arguments; --entrypoint
  ctx; printf 'FROM busybox\nENTRYPOINT ["echo", "ep"]\nCMD ["cmd"]\n' > Dockerfile; docker build -q -t ep .
  eq "$(docker run --rm ep)" "ep cmd"; eq "$(docker run --rm ep a b)" "ep a b"; eq "$(docker run --rm --entrypoint cat ep /etc/passwd)" "root:x:0:0:root:/root:/bin/sh"
  printf 'FROM busybox\nENTRYPOINT echo shell $((1+1))\n' > Dockerfile; docker build -q -t ep2 .; eq "$(docker run --rm ep2 ignored)" "shell 2"
}
t_build_env() {                     # ENV, both forms, at build and at run time; run -e
  ctx; printf 'FROM busybox\nENV VERSION=1.0 DEBUG=on NAME="HAPPY FEET"\nENV NODE_VERION 7.2.0\nRUN echo $NAME > /n\n' > Dockerfile; docker build -q -t env .
  eq "$(docker run --rm env sh -c 'cat /n; echo $VERSION $DEBUG $NODE_VERION' | tr '\n' ' ')" "HAPPY FEET 1.0 on 7.2.0 "
  eq "$(docker run --rm -e DEBUG=off env sh -c 'echo $DEBUG')" off
}
t_build_arg() {                     # ARG
  ctx; printf 'FROM busybox\nARG who=nobody\nRUN echo $who > /who\n' > Dockerfile; docker build -q -t arg .; eq "$(docker run --rm arg cat /who)" nobody
  docker build -q -t arg --build-arg who=me .; eq "$(docker run --rm arg sh -c 'cat /who; echo "[$who]"' | tr '\n' ' ')" "me [] "
}
t_build_volume() {                  # VOLUME makes an anonymous volume; -v mydata:/data takes its place
  ctx; printf 'FROM busybox\nRUN mkdir /data && echo seed > /data/f\nVOLUME /data\nVOLUME ["/a", "/b"]\n' > Dockerfile; docker build -q -t vol .
  docker run --name v1 vol sh -c 'echo x > /data/new; cat /data/f'; eq "$(docker inspect -f '{{len .Mounts}}' v1)" 3; lacks "$(docker diff v1)" /data/new
  docker run -d -v mydata:/data vol touch /data/named; wait_for 5 test -e "$(docker volume inspect -f '{{.Mountpoint}}' mydata)/named"
}
t_build_expose() {                  # EXPOSE alone publishes nothing
  ctx; printf 'FROM busybox\nEXPOSE 80 443/tcp\nCMD ["httpd","-f"]\n' > Dockerfile; docker build -q -t exp .
  docker run -d --name e1 exp; eq "$(docker port e1)" ""; docker run -d -P --name e2 exp; eq "$(docker port e2 | cut -d' ' -f1 | sort -u | tr '\n' ' ')" "443/tcp 80/tcp "
}
t_build_workdir() {                 # WORKDIR is made, and is relative to the one before
  ctx; printf 'FROM busybox\nWORKDIR /home\nWORKDIR test/deep\nRUN pwd > /p\n' > Dockerfile; docker build -q -t wd .; eq "$(docker run --rm wd sh -c 'cat /p; pwd' | tr '\n' ' ')" "/home/test/deep /home/test/deep "
  eq "$(docker run --rm -w /tmp wd pwd)" /tmp
}
t_build_user() {                    # USER; an unknown one is an error
  ctx; printf 'FROM ubuntu\nRUN groupadd -r redis && useradd -r -g redis redis\nUSER redis\nRUN id -un > /tmp/who\n' > Dockerfile; docker build -q -t usr .
  eq "$(docker run --rm usr sh -c 'cat /tmp/who; id -un; id -gn' | tr '\n' ' ')" "redis redis redis "; fails docker run --rm usr touch /etc/x; has "$OUT" "Permission denied"
  fails docker run --rm -u nosuchuser busybox true; has "$OUT" "nosuchuser"
}
t_build_healthcheck() {             # HEALTHCHECK CMD; healthy, then unhealthy; HEALTHCHECK NONE
  ctx; printf 'FROM busybox\nRUN touch /ok\nHEALTHCHECK --interval=500ms --timeout=3s --retries=2 CMD test -e /ok || exit 1\nCMD ["sleep","1000"]\n' > Dockerfile; docker build -q -t hc .
  docker run -d --name hc hc; wait_for 15 eval '[ "$(state Health.Status hc)" = healthy ]' || die "never healthy: $(docker inspect -f '{{json .State.Health}}' hc)"
  has "$(docker ps)" "(healthy)"; docker exec hc rm /ok; wait_for 15 eval '[ "$(state Health.Status hc)" = unhealthy ]' || die "never unhealthy"
  printf 'FROM hc\nHEALTHCHECK NONE\n' | docker build -q -t hc2 -; docker run -d --name hc2 hc2; eq "$(docker inspect -f '{{.State.Health}}' hc2)" '<nil>'
}
t_build_onbuild() {                 # ONBUILD runs in the next build
  ctx; printf 'FROM busybox\nONBUILD RUN echo child > /child\n' | docker build -q -t onb -; docker run --rm onb test ! -e /child
  local o; o=$(printf 'FROM onb\n' | docker build -t onbc -); has "$o" "build trigger"; eq "$(docker run --rm onbc cat /child)" child
}

# ---------------------------------------------------------------- commit, export, save ----
t_commit() {                        # change a running web server, docker diff, docker commit, run the result
  docker run --name webserver -d -p 80:80 nginx; http http://127.0.0.1/ >/dev/null
  docker exec webserver sh -c "echo '<h1>Hello, Docker!</h1>' > /usr/share/nginx/html/index.html"
  eq "$(http http://127.0.0.1/)" '<h1>Hello, Docker!</h1>'; has "$(docker diff webserver)" "C /usr/share/nginx/html/index.html"
  hasre "$(docker commit --author 'me <m@e>' --message 'new page' webserver nginx:v2)" '^sha256:'; has "$(docker history nginx:v2)" "new page"
  docker run -d -p 81:80 nginx:v2; eq "$(http http://127.0.0.1:81/)" '<h1>Hello, Docker!</h1>'
}
t_commit_start_attach() {           # docker start; attach; work; exit; commit; run
  docker create -it --name ubu ubuntu; docker start ubu
  drive 'sleep:0.5' 'send:' 'expect:# ' 'send:echo installed > /opt/thing' 'expect:# ' 'send:exit' -- $DOCKER attach ubu
  wait_for 5 stopped ubu; docker commit "$(docker ps -l -q)" beginman/my-nginx; has "$(docker images beginman/my-nginx)" latest
  drive 'expect:# ' 'send:cat /opt/thing' 'expect:installed\r' 'send:exit' -- $DOCKER run -t -i beginman/my-nginx /bin/bash
}
t_export_import() {                 # docker export > tar; cat tar | docker import - test/ubuntu:v1.0
  docker run --name test -e KEEP=no busybox sh -c 'echo snap > /snap'; docker export test > busybox.tar; tar -tf busybox.tar | grep -qx snap
  docker import - test/ubuntu:v1.0 < busybox.tar; has "$(docker image ls)" test/ubuntu; eq "$(docker run --rm test/ubuntu:v1.0 cat /snap)" snap
  eq "$(docker history -q test/ubuntu:v1.0 | wc -l)" 1 "history length"; eq "$(docker inspect -f '{{.Config.Cmd}}' test/ubuntu:v1.0)" "[]"
}
t_import_url() {                    # docker import http://.../exampleimage.tgz example/imagerepo
  tar -C "$WORK/bb" -czf "$WORK/www/exampleimage.tgz" .; docker import http://127.0.0.1:8000/exampleimage.tgz example/imagerepo
  eq "$(docker run --rm example/imagerepo echo imported)" imported
}
t_save_load() {                     # docker image save | gzip; docker image load -i; history is kept
  printf 'FROM busybox\nRUN echo s > /saved\nCMD ["cat","/saved"]\n' | docker build -q -t tosave -; local id; id=$(imgid tosave)
  docker image save tosave | gzip > nginx.tar.gz; docker rmi tosave; absent tosave
  has "$(docker image load -i nginx.tar.gz)" "Loaded image: tosave:latest"; eq "$(imgid tosave)" "$id"; eq "$(docker run --rm tosave)" s
  [ "$(docker history -q tosave | wc -l)" -ge 3 ] || die "history lost"
}

# ---------------------------------------------------------------- images: list, remove ----
t_image_ls() {                      # docker image ls / docker images; two tags, one id
  docker tag ubuntu:18.04 ubuntu:bionic; local o; o=$(docker image ls); hasre "$o" '^REPOSITORY +TAG +IMAGE ID +CREATED +SIZE'
  eq "$(echo "$o" | awk '$1=="ubuntu"{print $3}' | sort -u | wc -l)" 1; has "$(docker images)" bionic
  eq "$(docker image ls ubuntu | tail -n +2 | awk '{print $1}' | sort -u)" ubuntu; eq "$(docker image ls ubuntu:18.04 | wc -l)" 2
}
t_image_ls_filter() {               # -f since= before= label=
  local n; for n in redis mongo nginx9; do printf "FROM busybox\nLABEL com.example.version=$n\n" | docker build -q -t $n:3.2 -; done
  local o; o=$(docker image ls -f since=mongo:3.2); has "$o" nginx9; lacks "$o" redis
  o=$(docker image ls -f before=mongo:3.2); has "$o" redis; lacks "$o" nginx9
  eq "$(docker image ls -q -f label=com.example.version=redis)" "$(docker image ls -q redis)"
}
t_image_ls_all() {                  # image ls -a shows intermediate images; they go with their child
  printf 'FROM busybox\nENV a=1\nENV b=2\n' | docker build -q -t inter -; local a b; a=$(docker image ls -q | wc -l); b=$(docker image ls -a -q | wc -l)
  [ "$b" -gt "$a" ] || die "$a top, $b all"; docker image rm inter; [ "$(docker image ls -a -q | wc -l)" -lt "$b" ] || die "intermediate images stayed"
}
t_image_dangling() {                # <none> images, -f dangling=true, docker image prune, rmi $(images -q -f dangling=true)
  local i; for i in 1 2; do printf "FROM busybox\nLABEL n=$i\n" | docker build -q --no-cache -t dang -; done
  has "$(docker image ls -f dangling=true)" "<none>"; docker image prune -f; eq "$(docker image ls -q -f dangling=true)" ""
  printf "FROM busybox\nLABEL n=3\n" | docker build -q -t dang -; docker rmi $(docker images -q -f dangling=true); eq "$(docker image ls -q -f dangling=true)" ""
}
t_image_rm_id() {                   # docker image rm by short id
  printf 'FROM busybox\nLABEL x=short\n' | docker build -q -t shortid -; local id o; id=$(docker image ls -q shortid); o=$(docker image rm ${id:0:6})
  has "$o" "Untagged: shortid:latest"; has "$o" "Deleted: sha256:$id"; absent shortid
}
t_image_rm_digest() {               # image ls --digests; image rm NAME@sha256:...
  docker pull -q busybox; local d; d=$(docker image ls --digests --format '{{.Digest}}' busybox | grep sha256 | head -1); hasre "$d" '^sha256:[0-9a-f]{64}$'
  has "$(docker image rm busybox@$d)" "Untagged: busybox@$d"; docker pull -q busybox
}
t_image_rm_untag() {                # Untagged first, Deleted with the last name
  printf 'FROM busybox\nLABEL x=untag\n' | docker build -q -t un:1 -; docker tag un:1 un:2; local o; o=$(docker image rm un:1); has "$o" Untagged; lacks "$o" Deleted; has "$(docker image rm un:2)" Deleted
}
t_image_rm_in_use() {               # an image in use by a container stays; without the tag it is not found
  printf 'FROM busybox\nLABEL x=use\n' | docker build -q -t beginman/use:v1 -; docker run --name user1 beginman/use:v1 true
  fails docker rmi beginman/use; has "$OUT" "No such image: beginman/use"; fails docker rmi beginman/use:v1; has "$OUT" "must force"; has "$OUT" "$(docker ps -aqf name=user1)"
  docker ps -a | awk '{print $1,$2}' | grep beginman/use:v1 | awk '{print $1}' | xargs $DOCKER rm; docker rmi beginman/use:v1; absent beginman/use:v1
}
t_image_rm_force() {                # docker rmi -f
  printf 'FROM busybox\nLABEL x=force\n' | docker build -q -t forced -; docker run --name uf forced true; docker rmi -f forced; absent forced; docker inspect uf >/dev/null
}
t_image_rm_list() {                 # docker image rm $(docker image ls -q redis)
  local i; for i in 1 2; do printf "FROM busybox\nLABEL r=$i\n" | docker build -q -t redis:$i -; done; docker image rm -f $(docker image ls -q redis); eq "$(docker image ls -q redis)" ""
}
t_system_df() {                     # docker system df
  docker run -d busybox sleep 100; docker volume create dfv; local o; o=$(docker system df --format '{{.Type}}|{{.TotalCount}}|{{.Active}}')
  has "$o" "Containers|1|1"; has "$o" "Local Volumes|1|0"; has "$o" "Images|$(docker image ls -q | sort -u | wc -l)|1"; has "$(docker system df)" "Build Cache"
}

# ---------------------------------------------------------------- registry ----
t_registry_private() {              # docker run -d -p 5002:5000 -v ... registry; tag, push, catalog, pull
  ctx; cp /usr/bin/docker-registry .; printf 'version: 0.1\nstorage: {filesystem: {rootdirectory: /var/lib/registry}}\nhttp: {addr: ":5000"}\n' > r.yml
  printf 'FROM ubuntu\nCOPY docker-registry /bin/\nCOPY r.yml /etc/\nEXPOSE 5000\nVOLUME /var/lib/registry\nENTRYPOINT ["docker-registry"]\nCMD ["serve","/etc/r.yml"]\n' > Dockerfile; docker build -q -t registry .
  docker run -d -p 5002:5000 -v "$WORK/opt/data/registry:/var/lib/registry" --name registry_local registry; http -f http://127.0.0.1:5002/v2/ >/dev/null
  printf 'FROM busybox\nRUN echo mine > /mine\n' | docker build -q -t mine -; docker image tag mine:latest 127.0.0.1:5002/mine:latest
  hasre "$(docker image push 127.0.0.1:5002/mine:latest)" 'latest: digest: sha256:'; eq "$(http http://127.0.0.1:5002/v2/_catalog)" '{"repositories":["mine"]}'
  test -d "$WORK/opt/data/registry/docker/registry/v2/repositories/mine"; docker rmi 127.0.0.1:5002/mine mine
  docker pull 127.0.0.1:5002/mine:latest; eq "$(docker run --rm 127.0.0.1:5002/mine cat /mine)" mine
}
t_registry_host_network() {         # docker run --network=host registry
  docker image inspect registry >/dev/null; docker rm -f registry_local 2>/dev/null || true
  printf 'version: 0.1\nstorage: {filesystem: {rootdirectory: /var/lib/registry}}\nhttp: {addr: ":5004"}\n' > h.yml
  docker run -d --network=host -v "$PWD/h.yml:/etc/r.yml:ro" -v "$WORK/opt/data/registry:/var/lib/registry" --name registry_local registry
  has "$(http http://127.0.0.1:5004/v2/_catalog)" mine
}
t_login_push_logout() {             # docker login, ~/.docker/config.json, tag, push, pull, logout
  docker tag busybox 127.0.0.1:5001/beginman/ubuntu:18.04; fails docker push 127.0.0.1:5001/beginman/ubuntu:18.04; has "$OUT" "no basic auth credentials"
  fails docker login -u beginman -p wrong 127.0.0.1:5001
  drive 'expect:Username' 'send:beginman' 'expect:Password' 'send:s3cret' 'expect:Login Succeeded' -- $DOCKER login 127.0.0.1:5001
  has "$(cat "$HOME/.docker/config.json")" 127.0.0.1:5001; docker push 127.0.0.1:5001/beginman/ubuntu:18.04
  docker rmi 127.0.0.1:5001/beginman/ubuntu:18.04; docker pull 127.0.0.1:5001/beginman/ubuntu:18.04; docker logout 127.0.0.1:5001
  lacks "$(cat "$HOME/.docker/config.json")" 127.0.0.1:5001; fails docker pull 127.0.0.1:5001/beginman/ubuntu:18.04
}

# ---------------------------------------------------------------- volumes, bind mounts ----
t_volume_create() {                 # docker volume create, ls, inspect, rm
  docker volume create my-vol; hasre "$(docker volume ls)" 'local +my-vol'; local o; o=$(docker volume inspect my-vol)
  has "$o" '"Driver": "local"'; has "$o" "\"Mountpoint\": \"$WORK/data/volumes/my-vol/_data\""; docker volume rm my-vol; eq "$(docker volume ls -q)" ""
}
t_volume_mount() {                  # --mount source=my-vol,target=...; an empty volume gets the image's files; "Mounts"
  docker volume create my-vol; docker run -d -P --name web --mount source=my-vol,target=/usr/share/nginx/html nginx:alpine
  eq "$(docker inspect -f '{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}' web)" "volume my-vol /usr/share/nginx/html true"
  test -s "$WORK/data/volumes/my-vol/_data/index.html"; echo changed > "$WORK/data/volumes/my-vol/_data/index.html"; eq "$(http http://$(docker port web 80 | head -1)/)" changed
  fails docker volume rm my-vol; has "$OUT" "volume is in use"
}
t_volume_not_empty() {              # a volume with files hides the image's
  docker volume create full; docker run --rm -v full:/v busybox touch /v/only; eq "$(docker run --rm -v full:/etc busybox ls /etc | grep -v -e hosts -e hostname -e resolv)" only
}
t_volume_persists() {               # a volume outlives its container and is shared at once
  docker run --rm -v keep:/d busybox sh -c 'echo data > /d/f'; eq "$(docker run --rm -v keep:/d busybox cat /d/f)" data
  docker run -d --name s1 -v keep:/d busybox sleep 100; docker run -d --name s2 -v keep:/e busybox sleep 100; docker exec s1 sh -c 'echo now > /d/g'; eq "$(docker exec s2 cat /e/g)" now
}
t_volume_rm_v() {                   # docker rm -v
  docker run --name anon -v /data busybox touch /data/f; eq "$(docker volume ls -q | wc -l)" 1; docker rm -v anon; eq "$(docker volume ls -q)" ""
}
t_volume_prune() {                  # docker volume prune; from Docker 23 on those with a name only with -a
  local all=; ! docker volume prune --help | grep -q -- '--all' || all=-a
  docker volume create orphan; docker run -d -v used:/u busybox sleep 100; docker volume prune -f $all; eq "$(docker volume ls -q)" used
}
t_bind_mount() {                    # --mount type=bind; both sides see changes; the image's files are hidden
  mkdir -p "$WORK/src/webapp"; echo one > "$WORK/src/webapp/index.html"; docker run -d -P --name web --mount type=bind,source="$WORK/src/webapp",target=/usr/share/nginx/html nginx:alpine
  local u; u=http://$(docker port web 80 | head -1)/; eq "$(http $u)" one; echo two > "$WORK/src/webapp/index.html"; eq "$(http $u)" two
  docker exec web touch /usr/share/nginx/html/made; test -e "$WORK/src/webapp/made"; eq "$(docker inspect -f '{{range .Mounts}}{{.Type}} {{.RW}} {{.Propagation}}{{end}}' web)" "bind true rprivate"
}
t_bind_v() {                        # -v HOST:CONTAINER makes a missing directory, --mount refuses
  docker run --rm -dit --name bv -v "$WORK/made/by/v:/opt/webapp" busybox; test -d "$WORK/made/by/v"
  fails docker run --rm --mount type=bind,source="$WORK/not/there",target=/x busybox true; has "$OUT" "bind source path does not exist"
}
t_bind_readonly() {                 # readonly, :ro
  mkdir -p "$WORK/ro"; fails docker run --rm --mount type=bind,source="$WORK/ro",target=/h,readonly busybox touch /h/new.txt; has "$OUT" "touch: /h/new.txt: Read-only file system"
  fails docker run --rm -v "$WORK/ro:/h:ro" busybox touch /h/new.txt; has "$OUT" "Read-only file system"
}
t_bind_file() {                     # mount one file, .bash_history
  printf 'ls\ndiskutil list\n' > "$HOME/.bash_history"
  drive 'expect:# ' 'send:history' 'expect: 1 +ls' 'expect: 2 +diskutil list' 'send:exit' -- $DOCKER run --rm -it --mount type=bind,source=$HOME/.bash_history,target=/root/.bash_history ubuntu:18.04 bash
  has "$(cat "$HOME/.bash_history")" history
}
t_tmpfs_mount() {                   # tmpfs is the third kind
  has "$(docker run --rm --mount type=tmpfs,target=/t,tmpfs-size=1m busybox sh -c 'mount | grep " /t "; df /t | tail -1')" "tmpfs on /t type tmpfs"
  fails docker run --rm --tmpfs /t:size=64k busybox dd if=/dev/zero of=/t/f bs=1k count=100; has "$OUT" "No space left"
}
t_volumes_from() {                  # a data volume container, --volumes-from, and in cascade
  docker create -v /dbdata --name dbdata ubuntu /bin/bash; docker run -d --volumes-from dbdata --name db1 ubuntu sleep 100; docker run -d --volumes-from dbdata --name db2 ubuntu sleep 100
  docker run -d --name db3 --volumes-from db1 busybox sleep 100; docker exec db1 sh -c 'echo shared > /dbdata/f'; eq "$(docker exec db2 cat /dbdata/f)" shared; eq "$(docker exec db3 cat /dbdata/f)" shared
}
t_backup_restore() {                # tar a volume into backup.tar, and back into another
  docker run -v /dbdata --name dbdata ubuntu sh -c 'mkdir /dbdata/d; echo precious > /dbdata/d/f; chown 12:34 /dbdata/d/f'; rm -f backup.tar
  docker run --volumes-from dbdata -v "$(pwd)":/backup ubuntu tar cvf /backup/backup.tar /dbdata; tar -tf backup.tar | grep -q dbdata/d/f
  docker run -v /dbdata --name dbdata2 ubuntu /bin/bash; docker run --volumes-from dbdata2 -v "$(pwd)":/backup busybox tar xvf /backup/backup.tar
  eq "$(docker run --volumes-from dbdata2 busybox /bin/ls /dbdata)" d; eq "$(docker run --volumes-from dbdata2 busybox sh -c 'cat /dbdata/d/f; stat -c %u:%g /dbdata/d/f' | tr '\n' ' ')" "precious 12:34 "
}

# ---------------------------------------------------------------- network ----
t_port_random() {                   # -P; docker port; docker container ls -l; docker logs shows the request
  docker run -d -P --name web nginx:alpine; local p; p=$(docker port web 80 | head -1); hasre "$p" '^0\.0\.0\.0:[0-9]+$'
  hasre "$(docker container ls -l)" "${p}->80/tcp"; has "$(http http://127.0.0.1:${p##*:}/)" "container"; wait_for 5 logged web '"GET / HTTP/1.1" 200'
  has "$(docker top web)" "nginx: master process"; has "$(docker top web)" "nginx: worker process"
}
t_port_all_addresses() {            # -p 8080:80, on every address
  docker run -d -p 8080:80 --name web nginx; has "$(http http://127.0.0.1:8080/)" container; has "$(outside curl -sS -m 5 http://198.51.100.1:8080/)" container
}
t_port_localhost() {                # -p 127.0.0.1:8080:80
  docker run -d -p 127.0.0.1:8080:80 --name web nginx; has "$(http http://127.0.0.1:8080/)" container; fails outside curl -sS -m 3 http://198.51.100.1:8080/; eq "$(docker port web)" "80/tcp -> 127.0.0.1:8080"
}
t_port_localhost_random() {         # -p 127.0.0.1::80
  docker run -d -p 127.0.0.1::80 --name web nginx; local p; p=$(docker port web 80); hasre "$p" '^127\.0\.0\.1:[0-9]+$'; has "$(http http://$p/)" container
}
t_port_container_only() {           # -p 80: any free port of the host
  docker run -d -p 80 --name web nginx; local p; p=$(docker port web 80 | head -1); has "$(http http://127.0.0.1:${p##*:}/)" container
}
t_port_many() {                     # -p more than once
  docker run -d -p 8083:80 -p 8084:80 --name web nginx; has "$(http http://127.0.0.1:8083/)" container; has "$(http http://127.0.0.1:8084/)" container
}
t_port_taken() {                    # a port can be bound once
  docker run -d -p 8085:80 busybox sleep 100; fails docker run -d -p 8085:80 busybox sleep 100; has "$OUT" "port is already allocated"
}
t_port_udp() {                      # -p 127.0.0.1:80:80/udp
  docker run -d --name udp -p 127.0.0.1:9999:99/udp ubuntu perl -MIO::Socket::INET -e '$|=1; $s=IO::Socket::INET->new(LocalPort=>99,Proto=>"udp") or die; print "up\n"; $s->recv($b,99); print "got $b"'
  wait_for 5 logged udp up; eq "$(docker port udp)" "99/udp -> 127.0.0.1:9999"
  echo datagram > /dev/udp/127.0.0.1/9999; wait_for 5 logged udp 'got datagram'
}
t_link() {                          # --link db:db
  docker run -d --name db busybox httpd -f -p 5432; local ip o; ip=$(docker inspect -f '{{.NetworkSettings.IPAddress}}' db)
  o=$(docker run --rm --link db:dbalias busybox sh -c 'cat /etc/hosts; env; ping -c 1 -W 3 dbalias'); hasre "$o" "^$ip.*dbalias"; has "$o" "DBALIAS_NAME="; has "$o" "1 packets received"
}
t_network_create() {                # docker network create -d bridge my-net
  docker network create -d bridge my-net; hasre "$(docker network ls)" 'my-net +bridge +local'; ip link show "br-$(docker network inspect -f '{{.Id}}' my-net | cut -c1-12)"
  docker network rm my-net; lacks "$(docker network ls)" my-net
}
t_network_ping_by_name() {          # docker run -it --rm --name busybox1 --network my-net busybox sh; ping busybox2, ping busybox1
  docker network create -d bridge my-net; docker run -dit --name busybox2 --network my-net busybox sh
  local o; o=$(drive 'expect:/ # ' 'send:ping -c 2 busybox2' 'expect:64 bytes from 172\.[0-9.]+: seq=0' 'expect: 0% packet loss' 'send:exit' -- $DOCKER run -it --rm --name busybox1 --network my-net busybox sh)
  docker run -d --name busybox1 --network my-net busybox sleep 100; has "$(docker exec busybox2 ping -c 1 -W 3 busybox1)" "1 packets received"
}
t_network_isolation() {             # networks are apart; the default one knows no names
  docker network create other; docker run -d --name o1 --network other busybox sleep 100; docker run -d --name b1 busybox sleep 100
  fails docker run --rm busybox ping -c 1 -W 1 b1; fails docker run --rm busybox ping -c 1 -W 1 "$(docker inspect -f '{{.NetworkSettings.Networks.other.IPAddress}}' o1)"
  has "$(docker run --rm busybox ping -c 1 -W 3 "$(docker inspect -f '{{.NetworkSettings.IPAddress}}' b1)")" "1 packets received"
}
t_network_connect() {               # join a running container to a network
  docker network create my-net; docker run -d --name late busybox sleep 100; docker network connect my-net late; docker exec late ip addr show eth1 | grep -q 'inet '
  has "$(docker run --rm --network my-net busybox ping -c 1 -W 3 late)" "1 packets received"; docker network disconnect my-net late; fails docker exec late ip addr show eth1
}
t_network_host() {                  # --network=host
  eq "$(docker run --rm --network=host busybox readlink /proc/self/ns/net)" "$(readlink /proc/self/ns/net)"; has "$(docker run --rm --network=host busybox ip addr)" 198.51.100.1
  docker run -d --network=host busybox httpd -f -p 8090 -h /etc; has "$(http http://127.0.0.1:8090/passwd)" root
}
t_network_none() {                  # a container's network is its own
  eq "$(docker run --rm --network none busybox ls /sys/class/net | tr '\n' ' ')" "lo "
}
t_outside() {                       # net.ipv4.ip_forward; a container reaches the outside through NAT
  eq "$(cat /proc/sys/net/ipv4/ip_forward)" 1
  eq "$(docker run --rm ubuntu bash -c 'exec 3<>/dev/tcp/198.51.100.2/8080; printf "GET / HTTP/1.0\r\n\r\n" >&3; tail -n 1 <&3')" "hello from the web"
  has "$(tail -1 "$WORK/log/srv.outside")" "198.51.100.1 "
}

# ---------------------------------------------------------------- the daemon again (last: they restart it) ----
t_daemon_restart() {                # systemctl start docker: images, volumes, stopped and --restart=always containers survive
  docker run -d --restart=always --name always busybox sleep 1000; docker run --name kept busybox sh -c 'echo k > /k'; docker run --rm -v survives:/v busybox touch /v/f
  stop_dockerd; start_dockerd; wait_for 15 running always; docker start kept; docker cp kept:/k - | tar -xO | grep -qx k; docker run --rm -v survives:/v busybox test -e /v/f
}
t_userns_remap() {                  # a user namespace of its own: root in the container is nobody on the host
  local f; for f in passwd group subuid subgid; do cp /etc/$f "$WORK/etc.$f" 2>/dev/null || : > "$WORK/etc.$f"; touch /etc/$f; done
  echo 'dockremap:x:990:990::/:/bin/false' >> "$WORK/etc.passwd"; echo 'dockremap:x:990:' >> "$WORK/etc.group"; echo dockremap:300000:65536 | tee -a "$WORK/etc.subuid" >> "$WORK/etc.subgid"
  for f in passwd group subuid subgid; do mount --bind "$WORK/etc.$f" /etc/$f; done
  stop_dockerd; start_dockerd --userns-remap=dockremap; docker pull -q busybox
  hasre "$(docker run --rm busybox cat /proc/self/uid_map)" '^ +0 +300000 +65536$'; docker run -d --name remap busybox sleep 1000; eq "$(stat -c %u /proc/$(state Pid remap))" 300000
  eq "$(docker exec remap id -u)" 0
}

# ---------------------------------------------------------------- run them ----
if ! setup > "$WORK/log/setup" 2>&1; then
  echo "FAIL setup: $(tail -n 3 "$WORK/log/setup" "$WORK/log/dockerd" | tr '\n' ' ')"; echo "0 passed, 1 failed"; exit 1
fi
mapfile -t cases < <(sed -nE 's/^t_([a-z0-9_]+)\(\).*/\1/p' "$SELF")
[ "${cases[*]: -2}" = "daemon_restart userns_remap" ] || echo "# keep the daemon cases last" >&2
for c in "${cases[@]}"; do
  echo "$c" | grep -Eq -- "$ONLY" && run_case "$c"
done
stop_dockerd 2>/dev/null
echo "$PASSED passed, $FAILED failed"
[ "$FAILED" = 0 ]
