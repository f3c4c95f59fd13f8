// What one notebook's kernel tells of its federation. The kernel opens a comm when fednb is loaded; a kernel without
// fednb is asked for nothing and hears nothing.
//
// A page that comes in the middle of a run finds the comm in two ways: in the kernel's list, which a busy kernel gives
// only later, and in what the kernel repeats every few seconds, which comes at once.

const TARGET = "fednb.lab";
const VERSION = 1;
const PATIENCE = 15000; // milliseconds for a subshell, before a question goes the ordinary way

const strange = new Set();

function once(what, why) {
  if (strange.has(what)) return;
  strange.add(what);
  console.warn(`fednb: ignored ${what} from a kernel: ${why}`);
}

function within(promise, milliseconds) {
  const late = new Promise((resolve) => setTimeout(() => resolve(null), milliseconds));
  return Promise.race([Promise.resolve(promise).catch(() => null), late]);
}

export class Link {
  constructor(KernelMessage) {
    this._messages = KernelMessage;
    this._listeners = new Set();
    this._kernel = null;
    this._subshell = null;
    this.remembered = []; // parties of the last federation, so that a restart changes no colour
    this.clear();
  }

  // ---------------------------------------------------------------- what is known

  get connected() { return Boolean(this.federation && this.federation.connected); }
  get parties() { return this.federation ? this.federation.parties : []; }
  get coordinator() { return (this.federation && this.federation.coordinator) || "coordinator"; }

  // Whether a cell waits or runs at a member.
  get busy() {
    return [...this.cells.values()].some((cell) => cell.places.some(({ state }) => ["waiting", "pending", "running"].includes(state)));
  }

  clear() {
    this.loaded = false; // whether the kernel has fednb
    this.release = "";
    this.federation = null;
    this.tables = [];
    this.runs = [];
    this.progress = new Map(); // run -> its last news
    this.cells = new Map(); // cell -> its last news, with the time it came
    this.note = null;
    this.inboxes = []; // of the members that this notebook's user owns
    this.audit = null;
    this._comm = null;
    this._subshell = null;
  }

  // `listener(kind, detail)` after each change
  listen(listener) {
    this._listeners.add(listener);
    return () => this._listeners.delete(listener);
  }

  // ---------------------------------------------------------------- the kernel

  attach(kernel) {
    this.detach();
    if (!kernel) return;
    this._kernel = kernel;
    kernel.registerCommTarget(TARGET, (comm, message) => {
      this._adopt(comm);
      this._take(message.content.data);
    });
    this._onMessage = (_, message) => this._overhear(message);
    this._onStatus = (_, status) => {
      if (["restarting", "autorestarting", "dead", "terminating"].includes(status)) this._lost();
    };
    kernel.iopubMessage.connect(this._onMessage);
    kernel.statusChanged.connect(this._onStatus);
    kernel.requestCommInfo({ target_name: TARGET }).then((reply) => {
      const found = Object.keys((reply.content && reply.content.comms) || {});
      if (this._kernel === kernel && !this._comm && found.length) this._create(found[found.length - 1]);
    }).catch(() => undefined); // a kernel that went away meanwhile
  }

  detach() {
    const kernel = this._kernel;
    this._kernel = null;
    if (kernel && !kernel.isDisposed) {
      kernel.iopubMessage.disconnect(this._onMessage);
      kernel.statusChanged.disconnect(this._onStatus);
      if (this._comm && !this._comm.isDisposed) this._comm.dispose(); // here only: other pages go on
    }
    this._lost();
  }

  _lost() {
    this.clear();
    this._emit("lost");
  }

  // A page that was loaded while the kernel works: the comm is known by what it says.
  _overhear(message) {
    if (this._comm || message.header.msg_type !== "comm_msg") return;
    const { comm_id: id, data } = message.content;
    if (data && data.kind === "hello" && typeof data.release === "string" && "v" in data) {
      this._create(id);
      this._take(data);
    }
  }

  _create(id) {
    if (this._kernel.hasComm(id)) return;
    this._adopt(this._kernel.createComm(TARGET, id));
  }

  _adopt(comm) {
    this._comm = comm;
    this._subshell = null;
    comm.onMsg = (message) => this._take(message.content.data);
    comm.onClose = () => { if (this._comm === comm) this._lost(); };
    this.ask("hello");
  }

  // ---------------------------------------------------------------- news

  _take(data) {
    if (!data || data.v !== VERSION) return once(`version ${data && data.v}`, `this page knows ${VERSION}`);
    const take = Object.hasOwn(TAKES, data.kind) && TAKES[data.kind];
    if (!take) return once(`a message of kind ${data.kind}`, "this page does not know it");
    this.loaded = true;
    take(this, data);
    this._emit(data.kind, data);
  }

  _emit(kind, detail) {
    for (const listener of [...this._listeners]) listener(kind, detail);
  }

  // ---------------------------------------------------------------- questions

  async ask(kind, fields = {}) {
    const comm = this._comm, kernel = this._kernel;
    if (!comm || !kernel) return;
    const subshellId = await this._own(comm, kernel);
    if (kernel.isDisposed || this._comm !== comm) return;
    const content = { comm_id: comm.commId, data: { v: VERSION, kind, ...fields } };
    const names = { username: kernel.username, session: kernel.clientId };
    const message = this._messages.createMessage({ msgType: "comm_msg", channel: "shell", ...names, subshellId, content });
    kernel.sendShellMessage(message, false, true);
  }

  // A subshell: else a question waits until the running cell is over. The front end makes one for the comm, but not
  // before the kernel has introduced itself, which a busy kernel does late; then we ask on the control channel.
  async _own(comm, kernel) {
    if (comm.subshellId) return comm.subshellId;
    if (!this._subshell) {
      this._subshell = (async () => {
        await within(comm.subshellStarted, 500);
        if (comm.subshellId) return comm.subshellId;
        const info = await within(kernel.info, 500); // a busy kernel has not told yet
        if (info && !(info.supported_features || []).includes("kernel subshells")) return null;
        const names = { username: kernel.username, session: kernel.clientId };
        const request = this._messages.createMessage(
          { msgType: "create_subshell_request", channel: "control", ...names, content: {} });
        const reply = await within(kernel.sendControlMessage(request, true, true).done, PATIENCE);
        return (reply && reply.content && reply.content.subshell_id) || null;
      })();
    }
    return comm.subshellId || (await this._subshell);
  }
}

// What each kind of news changes.
const TAKES = {
  hello: (link, data) => { link.release = data.release; },
  federation: (link, data) => {
    link.federation = data;
    if (data.connected) link.remembered = data.parties;
  },
  tables: (link, data) => { link.tables = data.tables; },
  runs: (link, data) => { link.runs = data.runs; },
  run: (link, data) => { link.progress.set(data.run, data); },
  cell: (link, data) => { link.cells.set(data.cell, { ...data, at: performance.now() }); },
  note: (link, data) => { link.note = data; },
  inbox: (link, data) => { link.inboxes = data.inboxes; },
  case: () => undefined, // who listens keeps these two
  tried: () => undefined,
  audit: (link, data) => { link.audit = data; },
};
