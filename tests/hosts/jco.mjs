// Opens the folder that `jco serve` was started in to the component: by itself it opens the whole file system.
const { _setPreopens } = await import(process.env.JCO_FILESYSTEM);
_setPreopens({ "/media": process.cwd() });
