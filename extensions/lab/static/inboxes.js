// What waits for this page's user as an owner, over all notebooks that are open: a home that several notebooks have
// opened counts once. Decisions are the kernel's, which can read the member's keys; this page only names them.

export class Inboxes {
  // `changed()` after each change; `arrived(count)` when requests have come that this page had not seen; `noted(news)` for
  // what an owner's kernel has to say
  constructor(changed, arrived, noted = () => undefined) {
    this._noted = noted;
    this._changed = changed;
    this._arrived = arrived;
    this._links = new Map(); // link -> how to stop listening
    this._seen = new Set();
    this.cases = new Map(); // home and request -> what an owner has to see
    this.tried = new Map(); // home and request -> what it says on invented rows
  }

  add(link) {
    this._links.set(link, link.listen((kind, news) => this._heard(link, kind, news)));
  }

  remove(link) {
    const stop = this._links.get(link);
    if (stop) stop();
    this._links.delete(link);
    this._changed();
  }

  // Every inbox, with a link to a kernel that has opened it.
  get all() {
    const found = new Map();
    for (const link of this._links.keys()) {
      for (const inbox of link.inboxes) if (!found.has(inbox.home)) found.set(inbox.home, { link, inbox });
    }
    return [...found.values()];
  }

  get waiting() { return this.all.reduce((sum, { inbox }) => sum + inbox.requests.length, 0); }

  _heard(link, kind, news) {
    if (kind === "case") this.cases.set(key(news.home, news.request), news);
    else if (kind === "tried") this.tried.set(key(news.home, news.request), news);
    else if (kind === "inbox") this._notice();
    else if (kind === "note" && link.inboxes.length) this._noted(news);
    else if (kind !== "lost") return;
    this._changed();
  }

  _notice() {
    const now = this.all.flatMap(({ inbox }) => inbox.requests.map((request) => key(inbox.home, `${request.id} ${request.state}`)));
    const fresh = now.filter((each) => !this._seen.has(each));
    for (const each of fresh) this._seen.add(each);
    if (fresh.length) this._arrived(fresh.length);
  }
}

export function key(home, request) { return JSON.stringify([home, request]); }
