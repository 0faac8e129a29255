"""What other trainers call a key: TrainingArguments and LoraConfig, TRL, axolotl, LLaMA-Factory.

A name with a dot is that of a key in this table alone; with nothing before the dot, at the top level alone.
"""

from __future__ import annotations

OTHER_NAMES = {
    # which model
    ".base_model": "model.id",
    "model.base_model": "model.id",
    "base_model_name_or_path": "model.id",
    "hf_model": "model.id",
    "model_id": "model.id",
    "model_name": "model.id",
    "model_name_or_path": "model.id",
    "model_path": "model.id",
    "model.name": "model.id",
    "model.path": "model.id",
    "model_revision": "model.revision",
    "revision_of_model": "model.revision",
    "hub_revision": "model.revision",
    "model_dtype": "model.dtype",
    "torch_dtype": "model.dtype",
    "compute_dtype": "model.dtype",
    "attn_implementation": "model.attention",
    "eager_attention": 'model.attention = "eager"',
    "flash_attention": 'model.attention = "flash_attention_2"',
    "flash_attn": 'model.attention = "flash_attention_2"',
    "sdp_attention": 'model.attention = "sdpa"',
    "use_flash_attention_2": 'model.attention = "flash_attention_2"',
    "device_map": "model.device",
    "no_cuda": 'model.device = "cpu"',
    "use_cpu": 'model.device = "cpu"',
    "load_in_4bit": 'model.quantization = "nf4"',
    "load_in_8bit": 'model.quantization = "int8"',
    "quantization_bit": "model.quantization",
    "quantization_method": "model.quantization",
    "quantization_type": "model.quantization",
    "bnb_4bit_quant_type": "model.quantization",
    "eos_token": "model.end_token",
    "eot_tokens": "model.end_token",
    # which data
    "dataset": "data.source",
    "datasets": "data.source",
    "dataset_name": "data.source",
    "dataset_dir": "data.source",
    "data_dir": "data.source",
    "data_files": "data.source",
    "data_path": "data.source",
    "train_file": "data.source",
    "data.file": "data.source",
    "data.files": "data.source",
    "data.name": "data.source",
    "data.path": "data.source",
    "dataset_config": "data.config",
    "dataset_config_name": "data.config",
    "dataset_streaming": "data.streaming",
    "dataset_train_split": "data.train_split",
    "data.split": "data.train_split",
    "dataset_test_split": "data.test_split",
    "eval_dataset": "evaluate.data.source",
    "test_datasets": "evaluate.data.source",
    "max_samples": "data.rows",
    "max_train_samples": "data.train",
    "max_eval_samples": "data.test",
    "test_split_size": "data.holdout",
    "test_size": "data.holdout",
    "val_set_size": "data.validation_share",
    "val_size": "data.validation_share",
    "label_column": "data.columns.label",
    "columns.answer": "data.columns.response",
    "columns.input": "data.columns.context",
    "columns.instruction": "data.columns.context",
    "columns.output": "data.columns.response",
    "columns.prompt": "data.columns.context",
    "columns.question": "data.columns.context",
    "columns.rating": "data.columns.label",
    "columns.rationale": "data.columns.explanation",
    "columns.reason": "data.columns.explanation",
    "columns.score": "data.columns.label",
    "columns.text": "data.columns.response",
    "text_column": "data.columns.response",
    "dataset_text_field": "data.columns.response",
    "field_messages": "data.columns.messages",
    "trainable_token_indices": "lora.trained_tokens",
    "peft_trainable_token_indices": "lora.trained_tokens",
    # the prompt
    "default_system": "prompt.system",
    "default_system_message": "prompt.system",
    "system_prompt": "prompt.system",
    "prompt_template": "prompt.template",
    # the adapter
    "adapter_r": "lora.r",
    "additional_target": "lora.modules_to_save",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "lora_modules_to_save": "lora.modules_to_save",
    "lora_r": "lora.r",
    "lora_rank": "lora.r",
    "lora_target": "lora.target_modules",
    "lora_target_linear": 'lora.target_modules = "all-linear"',
    "lora_target_modules": "lora.target_modules",
    "rank": "lora.r",
    "use_dora": "lora.dora",
    "peft_use_dora": "lora.dora",
    "use_rslora": "lora.rslora",
    "peft_use_rslora": "lora.rslora",
    # the training
    "batch_size_per_device": "train.batch_size",
    "per_device_train_batch_size": "train.batch_size",
    "train_batch_size": "train.batch_size",
    "eval_batch_size": "evaluate.batch_size",
    "per_device_eval_batch_size": "evaluate.batch_size",
    "grad_accumulation": "train.accumulation",
    "gradient_accumulation_steps": "train.accumulation",
    "micro_batch_size": "train.micro_batch",
    "auto_find_batch_size": 'train.micro_batch = "auto"',
    "torch_compile": "train.compile",
    "compile_model": "train.compile",
    "activation_checkpointing": "train.gradient_checkpointing",
    "disable_gradient_checkpointing": "train.gradient_checkpointing = false",
    "bf16": 'train.precision = "bfloat16"',
    "fp16": 'train.precision = "float16"',
    "bfloat16": 'train.precision = "bfloat16"',
    "float16": 'train.precision = "float16"',
    "float32": 'train.precision = "float32"',
    "mixed_precision": "train.precision",
    "pure_bf16": 'model.dtype = "bfloat16"',
    "context_length": "train.max_length",
    "cutoff_len": "train.max_length",
    "max_seq_len": "train.max_length",
    "max_seq_length": "train.max_length",
    "model_max_length": "train.max_length",
    "sequence_len": "train.max_length",
    "sequence_length": "train.max_length",
    "early_stopping_patience": "train.early_stopping",
    "early_stopping_steps": "train.early_stopping",
    "eval_steps": "train.validate_every",
    "finetuning_lr": "train.lr",
    "learning_rate": "train.lr",
    "lr_scheduler": "train.schedule",
    "lr_scheduler_type": "train.schedule",
    "scheduler": "train.schedule",
    "max_steps": "train.steps",
    "num_steps": "train.steps",
    "num_epochs": "train.epochs",
    "num_train_epochs": "train.epochs",
    "n_epochs": "train.epochs",
    "gradient_clipping": "train.max_grad_norm",
    "max_gradient_norm": "train.max_grad_norm",
    "warmup_ratio": "train.warmup",
    "warmup_steps": "train.warmup",
    "save_steps": "train.checkpoint_every",
    "save_strategy": "train.checkpoint_every",
    "resume_from_checkpoint": "train.resume",
    "auto_resume_from_checkpoints": "train.resume",
    "restore_callback_states_from_checkpoint": "train.resume",
    "data_seed": "data.seed",
    "random_seed": "seeds",
    # the evaluation, and what comes of it
    "eval_max_new_tokens": "evaluate.max_new_tokens",
    "generation_max_new_tokens": "evaluate.max_new_tokens",
    "num_generation_samples": "evaluate.sampling.samples",
    "generation_temperature": "evaluate.sampling.temperature",
    "generation_top_p": "evaluate.sampling.top_p",
    "output_dir": "store",
    "output_path": "store",
    "out_dir": "store",
    "experiment_name": "name",
    "project_name": "name",
    "report_to_trackers": "train.report_to",
    "use_mlflow": 'train.report_to = ["mlflow"]',
    "use_tensorboard": 'train.report_to = ["tensorboard"]',
    "use_trackio": 'train.report_to = ["trackio"]',
    "use_wandb": 'train.report_to = ["wandb"]',
    # where it runs
    "fsdp": "executor.ranks",
    "use_ray": 'executor.kind = "ray"',
    "ray_num_workers": "executor.workers",
    "num_workers": "executor.workers",
}
"""Name → the key here, or the key with its value."""

MEASURED_IN = {
    "early_stopping_steps": "in validations",
    "save_strategy": "in steps",
    "test_size": "a share",
    "test_split_size": "a share",
    "val_set_size": "a share",
    "val_size": "a share",
    "warmup_steps": "a share of the steps",
}
"""Name → what the key here takes, where that is something else."""

# Why there is no such key → its names. One that ends with * stands for all that begin so.
NOT_HERE = {
    "the optimiser is AdamW; `train.lr`, `train.weight_decay` and `train.max_grad_norm` set it": (
        "optim optim_* optimizer adam_* beta1 beta2 eps momentum galore_* qgalore_* apollo_* badam_* dion_* "
        "use_galore use_apollo use_badam use_adam_mini use_muon loraplus_* embedding_lr* lr_groups"
    ),
    "of the learning rate `train.lr`, `train.schedule` and `train.warmup` alone can be set": (
        "lr_scheduler_kwargs lr_scheduler_args lr_quadratic_warmup lr_div_factor min_lr cosine_* jagged_* "
        "relora* min_lr_rate"
    ),
    "examples are never packed; a batch is padded to its longest, up to `train.max_length`": (
        "packing* eval_packing neat_packing sample_packing* eval_sample_packing padding_free pad_to_* "
        "padding padding_side group_by_length length_column_name batch_flattening multipack_* "
        "max_packed_sequence_len pretrain_multipack_* train_sampling_strategy truncation_mode "
        "excess_length_strategy eval_sequence_len streaming_multipack_*"
    ),
    "the loss is taken over the answer alone; `target.loss` weights its label, explanation and end": (
        "completion_only_loss assistant_only_loss train_on_* mask_history mask_prompt "
        "label_smoothing_factor label_smoothing loss_type ignore_pad_token_for_loss roles_to_train "
        "average_tokens_across_devices router_aux_loss_coef moe_aux_loss_coef use_dft_loss use_eaft* "
        "use_asft_loss eaft_* asft_* prediction_loss_only"
    ),
    "the text that is trained is written from `prompt.template`, `target.content` and `data.columns`": (
        "formatting_func dataset_kwargs chat_template_path chat_template_jinja chat_template_kwargs "
        "conversation conversation_template dataset_format tool_format enable_thinking preserve_thinking "
        "type_of_data field_* message_field_* message_property_mappings drop_system_message roles "
        "input_format no_input_format prompt_format system_format"
    ),
    "each step is logged, and `train.report_to` says where to, too": (
        "logging_* log_level* log_on_each_node disable_tqdm plot_loss include_num_input_tokens_seen "
        "include_tokens_per_second include_tkps include_effective_tokens_per_second"
    ),
    "trackers' runs are named after experiment and cell; `train.report_to` names the trackers": (
        "run_name project wandb_* mlflow_* comet_* use_comet trackio_* swanlab_* use_swanlab hf_mlflow_* "
        "use_otel_metrics otel_*"
    ),
    "`engine publish` uploads a trained adapter": (
        "push_to_hub* hub_* push_dataset_to_hub hf_use_auth_token hf_hub_token ms_hub_token om_hub_token "
        "export_* save_safetensors merge_lora merge_method merge_adapter"
    ),
    "the two newest checkpoints are kept while a training runs, and its adapter for good": (
        "save_* saves_per_epoch overwrite_output_dir enable_jit_checkpoint dynamic_checkpoint"
    ),
    "`train.early_stopping` makes validations, and keeps the adapter of the best loss": (
        "load_best_model_at_end metric_for_best_model greater_is_better eval_strategy evaluation_strategy "
        "eval_delay eval_on_start evals_per_epoch do_eval do_predict do_train loss_watchdog_*"
    ),
    "a cell is evaluated as `[evaluate]` says, in batches of `evaluate.batch_size`": (
        "eval_* include_for_metrics batch_eval_metrics compute_accuracy compute_metrics "
        "predict_with_generate do_bench_eval do_causal_lm_eval bench_* generate_* num_beams length_penalty "
        "repetition_penalty do_sample generation_*"
    ),
    "the engine reads and shuffles the examples itself, the same way on every machine": (
        "dataloader_* dataset_num_proc dataset_processes dataset_prepared_path preprocessing_* "
        "dataset_keep_in_memory overwrite_cache shuffle* disable_shuffling buffer_size mix_strategy "
        "interleave_probs remove_unused_columns label_names ignore_data_skip curriculum_sampling "
        "dataset_shard_* dataset_exact_deduplication tokenized_path skip_prepare_dataset cache_dir "
        "data_shared_file_system full_determinism pretraining_dataset pretraining_* preprocess_*"
    ),
    "`executor.ranks` shards a model over GPUs, and `executor.workers` runs cells side by side": (
        "deepspeed* ddp* fsdp_* local_rank world_size accelerator_config parallelism_config "
        "tensor_parallel_size context_parallel_size sequence_parallel_degree dp_* max_memory "
        "gpu_memory_limit low_cpu_mem_usage offload* activation_offloading layer_offloading "
        "resources_per_worker ray_* heads_k_stride ring_attn_func"
    ),
    "models run as transformers has them; `probe.backend` alone chooses between kernels": (
        "torch_compile* tf32 fp8* bf16_full_eval fp16_full_eval use_liger_kernel liger_* "
        "enable_liger_kernel use_unsloth* use_kernels use_cache use_kv_cache torch_empty_cache_steps "
        "gc_steps gc_collect_steps jit_mode_eval xformers_attention flex_attention s2_attention shift_attn "
        "flash_attn_* lora_mlp_kernel lora_qkv_kernel lora_o_kernel lora_embedding_kernel tiled_mlp* "
        "cut_cross_entropy chunked_cross_entropy* debug skip_memory_metrics profiler_* use_v1_kernels "
        "infer_backend infer_dtype"
    ),
    "activations are recomputed as torch does by itself; `train.gradient_checkpointing` says whether": (
        "gradient_checkpointing_kwargs activation_checkpointing_kwargs use_reentrant_gc "
        "selective_checkpointing recompute_layer_types"
    ),
    "`lora.target_modules` takes a regular expression, which can name layers and leave modules out": (
        "exclude_modules layers_pattern layers_to_transform peft_layers_pattern peft_layers_to_transform"
    ),
    "the adapter is a plain LoRA, of which `[lora]` has all that can be set": (
        ".adapter peft_type task_type lora_task_type use_peft peft* finetuning_type bias lora_bias "
        "init_lora_weights rank_pattern alpha_pattern lora_rank_pattern lora_alpha_pattern loftq_* "
        "eva_config corda_config lora_ga_config velora_config pissa_* megatron_config megatron_core "
        "layer_replication runtime_config target_parameters lora_target_parameters arrow_config kasa_config "
        "monteclora_config use_qalora qalora_* use_bdlora alora_invocation_tokens auto_mapping "
        "inference_mode fan_in_fan_out lora_fan_in_fan_out ensure_weight_tying lora_on_cpu oft_* "
        "module_dropout use_llama_pro freeze_* unfrozen_parameters lora_model_dir adapter_name_or_path "
        "create_new_adapter lisa_* mixture_of_depths"
    ),
    "weights are quantised in 4 or 8 bits as `model.quantization` says, by bitsandbytes": (
        "bnb_* use_bnb_nested_quant double_quantization gptq* quantization_device_map qat "
        "quantization_config model_quantization_config*"
    ),
    "model and tokenizer are taken as they are, by `model.id`": (
        "tokenizer tokenizer_* model_type type_of_model model_init_kwargs config_name rope_scaling "
        "use_fast_tokenizer special_tokens added_tokens_overrides additional_special_tokens "
        "add_special_tokens add_tokens new_special_tokens_config resize_vocab "
        "resize_token_embeddings_to_32x bos_token pad_token unk_token overrides_of_* base_model_config "
        "is_falcon_derived_model is_llama_derived_model is_mistral_derived_model is_qwen_derived_model "
        "train_from_scratch embeddings_skip_upcast upcast_* split_special_tokens processor_type "
        "use_auth_token"
    ),
    "nothing is added to the embeddings in training": "neftune_noise_alpha noisy_embedding_alpha",
    "a training is supervised, by labels and explanations; preferences and rewards have no place": (
        "rl rl_* stage dpo_* kto_* ppo_* grpo_* orpo_* cpo_* simpo_* pref_* reward_model* ref_model* trl "
        "vllm* sglang_* process_reward_model"
    ),
    "the engine reads no scripts or plug-ins from a spec; packages add to it by entry points": (
        "plugins callbacks trainer_callbacks trainer_cls"
    ),
}
