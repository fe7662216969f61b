BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'tiny');
INSERT INTO "studies" VALUES(2,'later');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
INSERT INTO "study_directions" VALUES(2,'MAXIMIZE',2,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_system_attributes" VALUES(1,1,'study:metric_names','["PSNR (dB)"]');
INSERT INTO "study_system_attributes" VALUES(2,2,'study:metric_names','["PSNR (dB)"]');
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'recipe','"{\"steps\": 8, \"evaluations\": 4, \"ema_decay\": 0.5, \"crops\": {\"batch\": 2, \"patch\": 8}, \"model\": {\"kind\": \"dncnn\", \"layers\": 3, \"width\": {\"choices\": [4, 6]}}, \"optimizer\": {\"kind\": \"adamw\", \"lr\": {\"low\": 0.001, \"high\": 0.01, \"log\": true}}, \"data\": {\"kind\": \"pairs\", \"dir\": \"pairs\"}}"');
INSERT INTO "study_user_attributes" VALUES(2,1,'commands','["python -m search run --study tiny.toml --out runs --workers 1 --quiet"]');
INSERT INTO "study_user_attributes" VALUES(3,1,'spec','"{\"name\":\"tiny\",\"description\":\"\",\"trials\":4,\"timeout\":600.0,\"ladder\":{\"rungs\":1,\"factor\":2,\"fewest_steps\":20},\"finale\":0.5,\"confirm_seeds\":1,\"finalists\":3,\"trial_timeout\":null,\"keep\":10,\"seed\":0,\"sampler\":\"gp\",\"inherit_weights\":true,\"limits\":{\"parameters\":400,\"gmacs\":null,\"ms_per_megapixel\":null,\"memory_mb\":null},\"recipe\":{\"steps\":8,\"evaluations\":4,\"ema_decay\":0.5,\"crops\":{\"batch\":2,\"patch\":8},\"model\":{\"kind\":\"dncnn\",\"layers\":3,\"width\":{\"choices\":[4,6]}},\"optimizer\":{\"kind\":\"adamw\",\"lr\":{\"low\":0.001,\"high\":0.01,\"log\":true}},\"data\":{\"kind\":\"pairs\",\"dir\":\"pairs\"}},\"first\":[{\"name\":\"by hand\",\"recipe\":{\"precision\":\"fp32\"},\"model.width\":4,\"optimizer.lr\":0.002}]}"');
INSERT INTO "study_user_attributes" VALUES(4,1,'data','"7e8720e3adeb0ae9"');
INSERT INTO "study_user_attributes" VALUES(5,1,'sitting','{"started": 1795856943.427837, "timeout": 600.0, "workers": 1, "input_psnr_db": 14.907906303132203, "owner": null}');
INSERT INTO "study_user_attributes" VALUES(6,1,'confirmed.0.1','"{\"trial\": 0, \"seed\": 1, \"steps\": 4, \"seconds\": 0.671501883000019, \"psnr_db\": [15.33542943234606, 15.47156238825975, 15.219472348804214, 15.76791860194538, 15.471749049633932, 15.77016898782762, 15.522004815257237], \"fresh\": false}"');
INSERT INTO "study_user_attributes" VALUES(7,2,'recipe','"{\"steps\": 8, \"evaluations\": 4, \"ema_decay\": 0.5, \"crops\": {\"batch\": 2, \"patch\": 8}, \"model\": {\"kind\": \"dncnn\", \"layers\": 3, \"width\": {\"choices\": [4, 6]}}, \"optimizer\": {\"kind\": \"adamw\", \"lr\": {\"low\": 0.001, \"high\": 0.01, \"log\": true}}, \"data\": {\"kind\": \"pairs\", \"dir\": \"pairs\"}}"');
INSERT INTO "study_user_attributes" VALUES(8,2,'earlier_trials','[{"params": {"model.width": 4, "optimizer.lr": 0.002036353334078083}, "distributions": {"model.width": "{\"name\": \"CategoricalDistribution\", \"attributes\": {\"choices\": [4, 6]}}", "optimizer.lr": "{\"name\": \"FloatDistribution\", \"attributes\": {\"step\": null, \"low\": 0.001, \"high\": 0.01, \"log\": true}}"}, "scores": {"25": 16.377016175561383, "50": 18.720453895120546, "75": 22.099954518910216, "100": 25.069765966002276}, "value": 25.062314203446356}, {"params": {"model.width": 4, "optimizer.lr": 0.0020605634971327374}, "distributions": {"model.width": "{\"name\": \"CategoricalDistribution\", \"attributes\": {\"choices\": [4, 6]}}", "optimizer.lr": "{\"name\": \"FloatDistribution\", \"attributes\": {\"step\": null, \"low\": 0.001, \"high\": 0.01, \"log\": true}}"}, "scores": {"25": 17.674606583855955, "50": 22.339384977509805, "75": 24.902768623735046, "100": 21.460094887679443}, "value": 24.93199665877347}]');
INSERT INTO "study_user_attributes" VALUES(9,2,'warm_start','["tiny"]');
INSERT INTO "study_user_attributes" VALUES(10,2,'commands','["python -m search run --study tiny.toml --name later --trials 1 --warm-start tiny --out runs --workers 1 --quiet"]');
INSERT INTO "study_user_attributes" VALUES(11,2,'spec','"{\"name\":\"later\",\"description\":\"\",\"trials\":1,\"timeout\":600.0,\"ladder\":{\"rungs\":1,\"factor\":2,\"fewest_steps\":20},\"finale\":0.5,\"confirm_seeds\":1,\"finalists\":3,\"trial_timeout\":null,\"keep\":10,\"seed\":0,\"sampler\":\"gp\",\"inherit_weights\":true,\"limits\":{\"parameters\":400,\"gmacs\":null,\"ms_per_megapixel\":null,\"memory_mb\":null},\"recipe\":{\"steps\":8,\"evaluations\":4,\"ema_decay\":0.5,\"crops\":{\"batch\":2,\"patch\":8},\"model\":{\"kind\":\"dncnn\",\"layers\":3,\"width\":{\"choices\":[4,6]}},\"optimizer\":{\"kind\":\"adamw\",\"lr\":{\"low\":0.001,\"high\":0.01,\"log\":true}},\"data\":{\"kind\":\"pairs\",\"dir\":\"pairs\"}},\"first\":[{\"name\":\"by hand\",\"recipe\":{\"precision\":\"fp32\"},\"model.width\":4,\"optimizer.lr\":0.002}]}"');
INSERT INTO "study_user_attributes" VALUES(12,2,'data','"7e8720e3adeb0ae9"');
INSERT INTO "study_user_attributes" VALUES(13,2,'sitting','{"started": 1795857008.8270624, "timeout": 600.0, "workers": 1, "input_psnr_db": 14.907906303132203, "owner": null}');
INSERT INTO "study_user_attributes" VALUES(14,2,'confirmed.0.1','"{\"trial\": 0, \"seed\": 1, \"steps\": 4, \"seconds\": 0.6130175179999924, \"psnr_db\": [15.347098375325402, 15.47896272979094, 15.227860877744295, 15.77825807572263, 15.479795152985623, 15.774111585099071, 15.534822052741816], \"fresh\": false}"');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_intermediate_values" VALUES(1,1,25,1.57607765613585790731e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(2,1,50,1.68024585103162173993e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(3,3,25,1.63770161755613834491e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(4,3,50,1.87204538951205456953e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(5,3,75,2.20999545189102164499e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(6,3,100,2.50697659660022758036e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(7,4,25,1.76746065838559545117e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(8,4,50,2.23393849775098054513e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(9,4,75,2.49027686237350458502e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(10,4,100,2.1460094887679442622e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(11,5,25,1.5777552757354685653e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(12,5,50,1.68595439688865376126e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(13,5,75,1.83148139811158650047e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(14,5,100,1.98709719134658406858e+01,'FINITE');
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'model.width',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [4, 6]}}');
INSERT INTO "trial_params" VALUES(2,1,'optimizer.lr',0.002,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(3,2,'model.width',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [4, 6]}}');
INSERT INTO "trial_params" VALUES(4,2,'optimizer.lr',1.00026339243112897571e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(5,3,'model.width',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [4, 6]}}');
INSERT INTO "trial_params" VALUES(6,3,'optimizer.lr',2.03635333407808320066e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(7,4,'model.width',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [4, 6]}}');
INSERT INTO "trial_params" VALUES(8,4,'optimizer.lr',2.06056349713273738444e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(9,5,'model.width',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [4, 6]}}');
INSERT INTO "trial_params" VALUES(10,5,'optimizer.lr',2.03635333407808320066e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.01, "log": true}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_system_attributes" VALUES(1,1,'fixed_params','{"model.width": 4, "optimizer.lr": 0.002}');
INSERT INTO "trial_system_attributes" VALUES(2,1,'constraints:parameters','-0.4375');
INSERT INTO "trial_system_attributes" VALUES(3,2,'constraints:parameters','0.11250000000000004');
INSERT INTO "trial_system_attributes" VALUES(4,3,'constraints:parameters','-0.4375');
INSERT INTO "trial_system_attributes" VALUES(5,3,'artifacts:080b6c69-046b-4962-8794-5ced4b293744','"{\"artifact_id\": \"080b6c69-046b-4962-8794-5ced4b293744\", \"filename\": \"sample.png\", \"mimetype\": \"image/png\", \"encoding\": null}"');
INSERT INTO "trial_system_attributes" VALUES(6,4,'constraints:parameters','-0.4375');
INSERT INTO "trial_system_attributes" VALUES(7,4,'artifacts:8ac6f4a8-7bc0-41a8-90f1-e2a4ff0b86f1','"{\"artifact_id\": \"8ac6f4a8-7bc0-41a8-90f1-e2a4ff0b86f1\", \"filename\": \"sample.png\", \"mimetype\": \"image/png\", \"encoding\": null}"');
INSERT INTO "trial_system_attributes" VALUES(8,1,'artifacts:ebf85037-14fd-438b-bb8f-0a8f79594eb8','"{\"artifact_id\": \"ebf85037-14fd-438b-bb8f-0a8f79594eb8\", \"filename\": \"sample.png\", \"mimetype\": \"image/png\", \"encoding\": null}"');
INSERT INTO "trial_system_attributes" VALUES(9,5,'fixed_params','{"model.width": 4, "optimizer.lr": 0.002036353334078083}');
INSERT INTO "trial_system_attributes" VALUES(10,6,'fixed_params','{"model.width": 4, "optimizer.lr": 0.0020605634971327374}');
INSERT INTO "trial_system_attributes" VALUES(11,7,'fixed_params','{"model.width": 4, "optimizer.lr": 0.002}');
INSERT INTO "trial_system_attributes" VALUES(12,8,'fixed_params','{"model.width": 4, "optimizer.lr": 0.002}');
INSERT INTO "trial_system_attributes" VALUES(13,5,'constraints:parameters','-0.4375');
INSERT INTO "trial_system_attributes" VALUES(14,5,'artifacts:579995e7-5ea9-4640-876f-7e3a26dc8aca','"{\"artifact_id\": \"579995e7-5ea9-4640-876f-7e3a26dc8aca\", \"filename\": \"sample.png\", \"mimetype\": \"image/png\", \"encoding\": null}"');
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'label','"by hand"');
INSERT INTO "trial_user_attributes" VALUES(2,1,'replaced','{"precision": "fp32"}');
INSERT INTO "trial_user_attributes" VALUES(3,1,'goal','50');
INSERT INTO "trial_user_attributes" VALUES(4,1,'owner','{"worker": "df7a3ae72db948e392e84b41a4a012eb", "name": "a-machine:8609", "host": "a-machine", "boot": "00000000-0000-0000-0000-000000000000/pid:[4026531836]", "pid": 8609, "parent": 8484}');
INSERT INTO "trial_user_attributes" VALUES(5,1,'inherited','{}');
INSERT INTO "trial_user_attributes" VALUES(6,1,'config','"{\"model\":{\"kind\":\"dncnn\",\"channels\":1,\"width\":4,\"layers\":3,\"batch_norm\":false},\"data\":{\"kind\":\"pairs\",\"dir\":\"pairs\",\"scan_dir\":null,\"clean_dir\":null,\"val_fraction\":0.2,\"channels\":\"auto\"},\"steps\":8,\"crops\":{\"batch\":2,\"patch\":8,\"before\":[],\"parts\":1},\"initial\":null,\"loss\":{\"kind\":\"l1\"},\"optimizer\":{\"kind\":\"adamw\",\"lr\":0.002,\"weight_decay\":0.0,\"beta1\":0.9,\"beta2\":0.999},\"schedule\":{\"warmup\":0.0,\"kind\":\"constant_cooldown\",\"cooldown\":0.25},\"sparsity\":{\"kind\":\"dense\"},\"augmentation\":{\"flips\":true,\"rotations\":true,\"rescale\":0.0,\"rescale_limit\":2.0,\"mixup\":0.0,\"channel_shuffle\":0.0,\"cutblur\":0.0},\"precision\":\"fp32\",\"compile\":false,\"ema_decay\":0.5,\"clip_norm\":1.0,\"evaluations\":4,\"pauses\":[0.5],\"rung_megapixels\":1.0,\"val_megapixels\":20.0,\"seed\":0,\"tempo\":null}"');
INSERT INTO "trial_user_attributes" VALUES(7,1,'parameters','225');
INSERT INTO "trial_user_attributes" VALUES(8,1,'gmacs_at_256','0.014155776');
INSERT INTO "trial_user_attributes" VALUES(9,1,'steps','8');
INSERT INTO "trial_user_attributes" VALUES(10,1,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(11,1,'data','"7e8720e3adeb0ae9"');
INSERT INTO "trial_user_attributes" VALUES(12,1,'device','"cpu (2 threads)"');
INSERT INTO "trial_user_attributes" VALUES(13,1,'versions','"{\"python\": \"3.11.7\", \"torch\": \"2.13.0+cpu\", \"optuna\": \"5.0.0\"}"');
INSERT INTO "trial_user_attributes" VALUES(14,1,'ms_per_megapixel','261.3344116213223');
INSERT INTO "trial_user_attributes" VALUES(15,1,'mb_per_megapixel','30.518436431884766');
INSERT INTO "trial_user_attributes" VALUES(16,1,'rungs','"[{\"step\": 2, \"psnr_db\": 15.760776561358579, \"ssim\": 0.7493119106607183, \"mae\": 0.1562079563283114, \"seconds\": 0.19633968999994522}, {\"step\": 4, \"psnr_db\": 16.802458510316217, \"ssim\": 0.7671563574160088, \"mae\": 0.1371660684734252, \"seconds\": 0.3649759610000274}]"');
INSERT INTO "trial_user_attributes" VALUES(17,1,'steps_done','4');
INSERT INTO "trial_user_attributes" VALUES(18,1,'seconds','3.954121793000013');
INSERT INTO "trial_user_attributes" VALUES(19,1,'seconds_per_step','0.06503406074997997');
INSERT INTO "trial_user_attributes" VALUES(20,1,'peak_memory_mb','471.0703125');
INSERT INTO "trial_user_attributes" VALUES(21,2,'goal','50');
INSERT INTO "trial_user_attributes" VALUES(22,2,'owner','{"worker": "df7a3ae72db948e392e84b41a4a012eb", "name": "a-machine:8609", "host": "a-machine", "boot": "00000000-0000-0000-0000-000000000000/pid:[4026531836]", "pid": 8609, "parent": 8484}');
INSERT INTO "trial_user_attributes" VALUES(23,2,'inherited','{"trials": [0], "psnr_db": 16.802458510316217, "sha256": "041b6765c15053a38ba8d867dff15579443c2fadcddcedbda5543b50658780b3"}');
INSERT INTO "trial_user_attributes" VALUES(24,2,'config','"{\"model\":{\"kind\":\"dncnn\",\"channels\":1,\"width\":6,\"layers\":3,\"batch_norm\":false},\"data\":{\"kind\":\"pairs\",\"dir\":\"pairs\",\"scan_dir\":null,\"clean_dir\":null,\"val_fraction\":0.2,\"channels\":\"auto\"},\"steps\":8,\"crops\":{\"batch\":2,\"patch\":8,\"before\":[],\"parts\":1},\"initial\":null,\"loss\":{\"kind\":\"l1\"},\"optimizer\":{\"kind\":\"adamw\",\"lr\":0.001000263392431129,\"weight_decay\":0.0,\"beta1\":0.9,\"beta2\":0.999},\"schedule\":{\"warmup\":0.0,\"kind\":\"constant_cooldown\",\"cooldown\":0.25},\"sparsity\":{\"kind\":\"dense\"},\"augmentation\":{\"flips\":true,\"rotations\":true,\"rescale\":0.0,\"rescale_limit\":2.0,\"mixup\":0.0,\"channel_shuffle\":0.0,\"cutblur\":0.0},\"precision\":\"auto\",\"compile\":false,\"ema_decay\":0.5,\"clip_norm\":1.0,\"evaluations\":4,\"pauses\":[0.5],\"rung_megapixels\":1.0,\"val_megapixels\":20.0,\"seed\":1,\"tempo\":null}"');
INSERT INTO "trial_user_attributes" VALUES(25,2,'parameters','445');
INSERT INTO "trial_user_attributes" VALUES(26,2,'gmacs_at_256','0.028311552');
INSERT INTO "trial_user_attributes" VALUES(27,2,'steps','8');
INSERT INTO "trial_user_attributes" VALUES(28,2,'seed','1');
INSERT INTO "trial_user_attributes" VALUES(29,2,'data','"7e8720e3adeb0ae9"');
INSERT INTO "trial_user_attributes" VALUES(30,2,'device','"cpu (2 threads)"');
INSERT INTO "trial_user_attributes" VALUES(31,2,'versions','"{\"python\": \"3.11.7\", \"torch\": \"2.13.0+cpu\", \"optuna\": \"5.0.0\"}"');
INSERT INTO "trial_user_attributes" VALUES(32,2,'beat','{"count": 1, "at": 1795856959.434608, "step": 0, "steps": 0}');
INSERT INTO "trial_user_attributes" VALUES(33,2,'rungs','"[]"');
INSERT INTO "trial_user_attributes" VALUES(34,2,'steps_done','0');
INSERT INTO "trial_user_attributes" VALUES(35,2,'seconds','0.10684934799996881');
INSERT INTO "trial_user_attributes" VALUES(36,2,'seconds_per_step','0.10685417100000905');
INSERT INTO "trial_user_attributes" VALUES(37,2,'peak_memory_mb','476.16796875');
INSERT INTO "trial_user_attributes" VALUES(38,2,'ended','"over the limits: 445 parameters (limit 400)"');
INSERT INTO "trial_user_attributes" VALUES(39,3,'goal','100');
INSERT INTO "trial_user_attributes" VALUES(40,3,'owner','{"worker": "df7a3ae72db948e392e84b41a4a012eb", "name": "a-machine:8609", "host": "a-machine", "boot": "00000000-0000-0000-0000-000000000000/pid:[4026531836]", "pid": 8609, "parent": 8484}');
INSERT INTO "trial_user_attributes" VALUES(41,3,'inherited','{}');
INSERT INTO "trial_user_attributes" VALUES(42,3,'config','"{\"model\":{\"kind\":\"dncnn\",\"channels\":1,\"width\":4,\"layers\":3,\"batch_norm\":false},\"data\":{\"kind\":\"pairs\",\"dir\":\"pairs\",\"scan_dir\":null,\"clean_dir\":null,\"val_fraction\":0.2,\"channels\":\"auto\"},\"steps\":8,\"crops\":{\"batch\":2,\"patch\":8,\"before\":[],\"parts\":1},\"initial\":null,\"loss\":{\"kind\":\"l1\"},\"optimizer\":{\"kind\":\"adamw\",\"lr\":0.002036353334078083,\"weight_decay\":0.0,\"beta1\":0.9,\"beta2\":0.999},\"schedule\":{\"warmup\":0.0,\"kind\":\"constant_cooldown\",\"cooldown\":0.25},\"sparsity\":{\"kind\":\"dense\"},\"augmentation\":{\"flips\":true,\"rotations\":true,\"rescale\":0.0,\"rescale_limit\":2.0,\"mixup\":0.0,\"channel_shuffle\":0.0,\"cutblur\":0.0},\"precision\":\"auto\",\"compile\":false,\"ema_decay\":0.5,\"clip_norm\":1.0,\"evaluations\":4,\"pauses\":[0.5],\"rung_megapixels\":1.0,\"val_megapixels\":20.0,\"seed\":2,\"tempo\":null}"');
INSERT INTO "trial_user_attributes" VALUES(43,3,'parameters','225');
INSERT INTO "trial_user_attributes" VALUES(44,3,'gmacs_at_256','0.014155776');
INSERT INTO "trial_user_attributes" VALUES(45,3,'steps','8');
INSERT INTO "trial_user_attributes" VALUES(46,3,'seed','2');
INSERT INTO "trial_user_attributes" VALUES(47,3,'data','"7e8720e3adeb0ae9"');
INSERT INTO "trial_user_attributes" VALUES(48,3,'device','"cpu (2 threads)"');
INSERT INTO "trial_user_attributes" VALUES(49,3,'versions','"{\"python\": \"3.11.7\", \"torch\": \"2.13.0+cpu\", \"optuna\": \"5.0.0\"}"');
INSERT INTO "trial_user_attributes" VALUES(50,3,'beat','{"count": 3, "at": 1795856961.2871356, "step": 8, "steps": 8}');
INSERT INTO "trial_user_attributes" VALUES(51,3,'ms_per_megapixel','317.5572662363069');
INSERT INTO "trial_user_attributes" VALUES(52,3,'mb_per_megapixel','30.518436431884766');
INSERT INTO "trial_user_attributes" VALUES(53,3,'rungs','"[{\"step\": 2, \"psnr_db\": 16.377016175561383, \"ssim\": 0.7604018526877674, \"mae\": 0.14505935366473954, \"seconds\": 0.228045828000063}, {\"step\": 4, \"psnr_db\": 18.720453895120546, \"ssim\": 0.7915142565380833, \"mae\": 0.10756302521008403, \"seconds\": 0.429035931000044}, {\"step\": 6, \"psnr_db\": 22.099954518910216, \"ssim\": 0.8133110696556284, \"mae\": 0.06628697514811552, \"seconds\": 0.6767692910000278}, {\"step\": 8, \"psnr_db\": 25.069765966002276, \"ssim\": 0.8237706302178776, \"mae\": 0.042554106041393536, \"seconds\": 0.8562900409999656}]"');
INSERT INTO "trial_user_attributes" VALUES(54,3,'steps_done','8');
INSERT INTO "trial_user_attributes" VALUES(55,3,'seconds','0.9827865280000196');
INSERT INTO "trial_user_attributes" VALUES(56,3,'seconds_per_step','0.06315676749997579');
INSERT INTO "trial_user_attributes" VALUES(57,3,'peak_memory_mb','488.91796875');
INSERT INTO "trial_user_attributes" VALUES(58,3,'psnr_db','25.062314203446356');
INSERT INTO "trial_user_attributes" VALUES(59,3,'ssim','0.8235541253504577');
INSERT INTO "trial_user_attributes" VALUES(60,3,'mae','0.04260282117962274');
INSERT INTO "trial_user_attributes" VALUES(61,3,'ended','"finished"');
INSERT INTO "trial_user_attributes" VALUES(62,4,'goal','100');
INSERT INTO "trial_user_attributes" VALUES(63,4,'owner','{"worker": "df7a3ae72db948e392e84b41a4a012eb", "name": "a-machine:8609", "host": "a-machine", "boot": "00000000-0000-0000-0000-000000000000/pid:[4026531836]", "pid": 8609, "parent": 8484}');
INSERT INTO "trial_user_attributes" VALUES(64,4,'inherited','{}');
INSERT INTO "trial_user_attributes" VALUES(65,4,'config','"{\"model\":{\"kind\":\"dncnn\",\"channels\":1,\"width\":4,\"layers\":3,\"batch_norm\":false},\"data\":{\"kind\":\"pairs\",\"dir\":\"pairs\",\"scan_dir\":null,\"clean_dir\":null,\"val_fraction\":0.2,\"channels\":\"auto\"},\"steps\":8,\"crops\":{\"batch\":2,\"patch\":8,\"before\":[],\"parts\":1},\"initial\":null,\"loss\":{\"kind\":\"l1\"},\"optimizer\":{\"kind\":\"adamw\",\"lr\":0.0020605634971327374,\"weight_decay\":0.0,\"beta1\":0.9,\"beta2\":0.999},\"schedule\":{\"warmup\":0.0,\"kind\":\"constant_cooldown\",\"cooldown\":0.25},\"sparsity\":{\"kind\":\"dense\"},\"augmentation\":{\"flips\":true,\"rotations\":true,\"rescale\":0.0,\"rescale_limit\":2.0,\"mixup\":0.0,\"channel_shuffle\":0.0,\"cutblur\":0.0},\"precision\":\"auto\",\"compile\":false,\"ema_decay\":0.5,\"clip_norm\":1.0,\"evaluations\":4,\"pauses\":[0.5],\"rung_megapixels\":1.0,\"val_megapixels\":20.0,\"seed\":3,\"tempo\":null}"');
INSERT INTO "trial_user_attributes" VALUES(66,4,'parameters','225');
INSERT INTO "trial_user_attributes" VALUES(67,4,'gmacs_at_256','0.014155776');
INSERT INTO "trial_user_attributes" VALUES(68,4,'steps','8');
INSERT INTO "trial_user_attributes" VALUES(69,4,'seed','3');
INSERT INTO "trial_user_attributes" VALUES(70,4,'data','"7e8720e3adeb0ae9"');
INSERT INTO "trial_user_attributes" VALUES(71,4,'device','"cpu (2 threads)"');
INSERT INTO "trial_user_attributes" VALUES(72,4,'versions','"{\"python\": \"3.11.7\", \"torch\": \"2.13.0+cpu\", \"optuna\": \"5.0.0\"}"');
INSERT INTO "trial_user_attributes" VALUES(73,4,'ms_per_megapixel','296.94082641536227');
INSERT INTO "trial_user_attributes" VALUES(74,4,'mb_per_megapixel','30.518436431884766');
INSERT INTO "trial_user_attributes" VALUES(75,4,'rungs','"[{\"step\": 2, \"psnr_db\": 17.674606583855955, \"ssim\": 0.7815248722219578, \"mae\": 0.1230859607270018, \"seconds\": 0.16574446900006023}, {\"step\": 4, \"psnr_db\": 22.339384977509805, \"ssim\": 0.8197175880237849, \"mae\": 0.0635059138745012, \"seconds\": 0.300635638000017}, {\"step\": 6, \"psnr_db\": 24.902768623735046, \"ssim\": 0.8307911176973289, \"mae\": 0.045995687277468535, \"seconds\": 0.44934221699998034}, {\"step\": 8, \"psnr_db\": 21.460094887679443, \"ssim\": 0.8252967013130219, \"mae\": 0.07439518006691168, \"seconds\": 0.5921016710000231}]"');
INSERT INTO "trial_user_attributes" VALUES(76,4,'steps_done','8');
INSERT INTO "trial_user_attributes" VALUES(77,4,'seconds','0.7432460850001235');
INSERT INTO "trial_user_attributes" VALUES(78,4,'seconds_per_step','0.029894698999981983');
INSERT INTO "trial_user_attributes" VALUES(79,4,'peak_memory_mb','491.02734375');
INSERT INTO "trial_user_attributes" VALUES(80,4,'beat','{"count": 4, "at": 1795856962.9944713, "step": 8, "steps": 8}');
INSERT INTO "trial_user_attributes" VALUES(81,4,'psnr_db','24.93199665877347');
INSERT INTO "trial_user_attributes" VALUES(82,4,'ssim','0.8302302159167064');
INSERT INTO "trial_user_attributes" VALUES(83,4,'mae','0.04580225952273492');
INSERT INTO "trial_user_attributes" VALUES(84,4,'ended','"finished"');
INSERT INTO "trial_user_attributes" VALUES(85,1,'ended','"beaten at 50 %: 16.80 dB"');
INSERT INTO "trial_user_attributes" VALUES(86,5,'label','"from tiny, trial 2"');
INSERT INTO "trial_user_attributes" VALUES(87,6,'label','"from tiny, trial 3"');
INSERT INTO "trial_user_attributes" VALUES(88,7,'label','"from tiny, trial 0"');
INSERT INTO "trial_user_attributes" VALUES(89,8,'label','"by hand"');
INSERT INTO "trial_user_attributes" VALUES(90,8,'replaced','{"precision": "fp32"}');
INSERT INTO "trial_user_attributes" VALUES(91,5,'goal','100');
INSERT INTO "trial_user_attributes" VALUES(92,5,'owner','{"worker": "ec1b01f4bc0b4f058a77e8ea5c81fb84", "name": "a-machine:8811", "host": "a-machine", "boot": "00000000-0000-0000-0000-000000000000/pid:[4026531836]", "pid": 8811, "parent": 8785}');
INSERT INTO "trial_user_attributes" VALUES(93,5,'inherited','{}');
INSERT INTO "trial_user_attributes" VALUES(94,5,'config','"{\"model\":{\"kind\":\"dncnn\",\"channels\":1,\"width\":4,\"layers\":3,\"batch_norm\":false},\"data\":{\"kind\":\"pairs\",\"dir\":\"pairs\",\"scan_dir\":null,\"clean_dir\":null,\"val_fraction\":0.2,\"channels\":\"auto\"},\"steps\":8,\"crops\":{\"batch\":2,\"patch\":8,\"before\":[],\"parts\":1},\"initial\":null,\"loss\":{\"kind\":\"l1\"},\"optimizer\":{\"kind\":\"adamw\",\"lr\":0.002036353334078083,\"weight_decay\":0.0,\"beta1\":0.9,\"beta2\":0.999},\"schedule\":{\"warmup\":0.0,\"kind\":\"constant_cooldown\",\"cooldown\":0.25},\"sparsity\":{\"kind\":\"dense\"},\"augmentation\":{\"flips\":true,\"rotations\":true,\"rescale\":0.0,\"rescale_limit\":2.0,\"mixup\":0.0,\"channel_shuffle\":0.0,\"cutblur\":0.0},\"precision\":\"auto\",\"compile\":false,\"ema_decay\":0.5,\"clip_norm\":1.0,\"evaluations\":4,\"pauses\":[0.5],\"rung_megapixels\":1.0,\"val_megapixels\":20.0,\"seed\":0,\"tempo\":null}"');
INSERT INTO "trial_user_attributes" VALUES(95,5,'parameters','225');
INSERT INTO "trial_user_attributes" VALUES(96,5,'gmacs_at_256','0.014155776');
INSERT INTO "trial_user_attributes" VALUES(97,5,'steps','8');
INSERT INTO "trial_user_attributes" VALUES(98,5,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(99,5,'data','"7e8720e3adeb0ae9"');
INSERT INTO "trial_user_attributes" VALUES(100,5,'device','"cpu (2 threads)"');
INSERT INTO "trial_user_attributes" VALUES(101,5,'versions','"{\"python\": \"3.11.7\", \"torch\": \"2.13.0+cpu\", \"optuna\": \"5.0.0\"}"');
INSERT INTO "trial_user_attributes" VALUES(102,5,'ms_per_megapixel','235.15637206927843');
INSERT INTO "trial_user_attributes" VALUES(103,5,'mb_per_megapixel','30.518436431884766');
INSERT INTO "trial_user_attributes" VALUES(104,5,'rungs','"[{\"step\": 2, \"psnr_db\": 15.777552757354686, \"ssim\": 0.7497019395061043, \"mae\": 0.155874114351623, \"seconds\": 0.21102859400002671}, {\"step\": 4, \"psnr_db\": 16.859543968886538, \"ssim\": 0.7685446174096313, \"mae\": 0.1361917657088411, \"seconds\": 0.43597623800008023}, {\"step\": 6, \"psnr_db\": 18.314813981115865, \"ssim\": 0.7859403567433892, \"mae\": 0.11281566334973887, \"seconds\": 0.6667043980000926}, {\"step\": 8, \"psnr_db\": 19.87097191346584, \"ssim\": 0.7996689055958487, \"mae\": 0.09127640826151433, \"seconds\": 0.8576082220000671}]"');
INSERT INTO "trial_user_attributes" VALUES(105,5,'steps_done','8');
INSERT INTO "trial_user_attributes" VALUES(106,5,'seconds','0.9875452870001027');
INSERT INTO "trial_user_attributes" VALUES(107,5,'seconds_per_step','0.06159258750000163');
INSERT INTO "trial_user_attributes" VALUES(108,5,'peak_memory_mb','478.9765625');
INSERT INTO "trial_user_attributes" VALUES(109,5,'beat','{"count": 1, "at": 1795857022.2782857, "step": 8, "steps": 8}');
INSERT INTO "trial_user_attributes" VALUES(110,5,'psnr_db','19.86495564982218');
INSERT INTO "trial_user_attributes" VALUES(111,5,'ssim','0.7994289739915593');
INSERT INTO "trial_user_attributes" VALUES(112,5,'mae','0.09134088417975886');
INSERT INTO "trial_user_attributes" VALUES(113,5,'ended','"finished"');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,3,0,2.50623142034463555196e+01,'FINITE');
INSERT INTO "trial_values" VALUES(2,4,0,2.49319966587734711529e+01,'FINITE');
INSERT INTO "trial_values" VALUES(3,1,0,1.68024585103162173993e+01,'FINITE');
INSERT INTO "trial_values" VALUES(4,5,0,1.98649556498221784295e+01,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'PRUNED','2026-11-28 09:09:24.235135','2026-11-28 09:09:24.285676');
INSERT INTO "trials" VALUES(2,1,1,'PRUNED','2026-11-28 09:09:19.228852','2026-11-28 09:09:19.479649');
INSERT INTO "trials" VALUES(3,2,1,'COMPLETE','2026-11-28 09:09:20.755193','2026-11-28 09:09:21.379302');
INSERT INTO "trials" VALUES(4,3,1,'COMPLETE','2026-11-28 09:09:22.574012','2026-11-28 09:09:23.108229');
INSERT INTO "trials" VALUES(5,0,2,'COMPLETE','2026-11-28 09:10:21.751598','2026-11-28 09:10:22.381310');
INSERT INTO "trials" VALUES(6,1,2,'WAITING',NULL,NULL);
INSERT INTO "trials" VALUES(7,2,2,'WAITING',NULL,NULL);
INSERT INTO "trials" VALUES(8,3,2,'WAITING',NULL,NULL);
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
