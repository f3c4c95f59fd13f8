// The module-federation container that JupyterLab and Notebook load. Written by hand, so that nothing has to be built:
// the modules beside it are ordinary ES modules, and what JupyterLab shares is asked for by name.
(() => {
  const here = document.currentScript.src;
  let scope;

  async function shared(name) {
    const versions = scope[name];
    if (!versions) throw new Error(`fednb: this front end does not share ${name}`);
    const newest = Object.keys(versions).sort((a, b) => b.localeCompare(a, undefined, { numeric: true }))[0];
    return (await versions[newest].get())();
  }

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB["fednb-lab"] = {
    init: (given) => { scope = given; },
    get: async () => {
      const { plugin } = await import(new URL("plugin.js", here));
      const made = { __esModule: true, default: await plugin(shared) };
      return () => made;
    },
  };
})();
